import os, sys, time, torch, numpy as np
from dataclasses import replace
from pathlib import Path
import epigraph
from epigraph.tasks.task import Task
from epigraph.tasks.split import head
from epigraph.library import Library
from epigraph.model import PromptModel
from epigraph.correct.answers import right_answers
from epigraph.correct.margins import wanted_margins
from epigraph.correct import heart
from epigraph.engine.inspection import answer_looks
from epigraph.methods import judge
NAME,SET,SPLIT,NC=sys.argv[1],sys.argv[2],int(sys.argv[3]),int(sys.argv[4])
base=epigraph.load_base(); eng=epigraph.Engine(base)
whole=Task.from_file(Path(os.environ["EPIGRAPH_DATA"])/SET)
train=head(whole.train.rows,1000,0); test=head(whole.test.rows,10000,0)
model=PromptModel(Library(Path(os.environ["TRIAL_LIBRARY"])).get(NAME),base,engine=eng); S=model.method
sh=head(test,len(test),SPLIT); first,second=sh[:len(test)//2][:450],sh[len(test)//2:][:500]
t=time.time(); right=right_answers(S,first); wrong=[r for r,ok in zip(first,right) if not ok][:NC]
keep=[replace(r,target=None) for r in train[:400]]
eng.freeze(S.encode([*wrong,*keep,*second])); ka=judge.answer(S,keep).given; ha=judge.answer(S,second).given
print("before",time.time()-t,flush=True)

wl0,kl0=answer_looks(eng,S.encode(wrong),S.forms,S.tree),answer_looks(eng,S.encode(keep),S.forms,S.tree)
L,A=wl0.queries.shape[0],wl0.queries.shape[2]
from epigraph.prompts import KeyValue
f=S.forms[0]
for arm in sys.argv[5:]:
    a=dict(x.split("=") for x in arm.split(","))
    heart.NEAR,heart.FAR,heart.HEADS,heart.RIDGE=float(a.get("near",3)),float(a.get("far",30)),int(a.get("heads",4)),float(a.get("ridge",1e-3))
    t=time.time(); V=heart.count(len(wrong),L*A)
    un=heart.unseen_keys(kl0)[:,:,None].repeat(1,1,V,1)
    S2=S.with_forms([KeyValue(torch.cat([f.keys,un],2),torch.cat([f.values,torch.zeros_like(un)],2))])
    wl,kl=answer_looks(eng,S.encode(wrong),S2.forms,S.tree),answer_looks(eng,S.encode(keep),S2.forms,S.tree)
    v=heart.own_keys(wl,kl)
    hb0=judge.answer(S2,second).given
    vals,ok=heart.own_values(v,f,wanted_margins(S,wrong),float(a.get("reach",.5)),lambda *_:0); tv=time.time()-t
    T=S.with_forms([v.behind(f,vals)])
    m=int(right_answers(T,wrong).sum()); kb=judge.answer(T,keep).given; hb=judge.answer(T,second).given
    acc=[float(np.mean([x==r.target for x,r in zip(h,second)])) for h in (ha,hb)]
    print(arm,"vectors",V,"shift alone",sum(x!=y for x,y in zip(ha,hb0)),"mastered",m,"of",len(wrong),"kept changed",sum(x!=y for x,y in zip(ka,kb)),"held changed",sum(x!=y for x,y in zip(ha,hb)),"of",len(second),"acc",acc,f"s {tv:.1f}",flush=True)
