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

z=torch.einsum("lnagd,lavd->lnagv",kl0.queries,f.keys)-kl0.sums[...,None]
zw=torch.einsum("lnagd,lavd->lnagv",wl0.queries,f.keys)-wl0.sums[...,None]
looked=z.amax((1,3))   # L A P
print("slots of",looked.numel(),"with worst look below",[(t,int((looked<t).sum())) for t in (-2,-3,-4,-5,-6,-8)])
for arm in sys.argv[5:]:
    a=dict(x.split("=") for x in arm.split(","))
    heart.NEAR,heart.FAR,heart.HEADS=float(a.get("near",3)),float(a.get("far",30)),int(a.get("heads",2))
    C=len(wrong); H=heart.HEADS
    t=time.time()
    keys,seen=[],[]
    P=f.keys.shape[2]
    best=torch.zeros(L,A,C,f.keys.shape[3]); least=torch.full((L,A,C),99.)
    for l in range(L):
        for h in range(A):
            own,sums=wl0.queries[l,:,h],wl0.sums[l,:,h]; oth,th=kl0.queries[l,:,h],kl0.sums[l,:,h]
            k=heart._solve(own,sums,torch.cat([oth,own]).flatten(0,1),torch.cat([th,sums]).flatten())
            lk=(torch.einsum("ngd,hcd->nghc",oth,k)-th[:,:,None,None]).amax((0,1))  # G C
            m,w=lk.min(0); least[l,h]=m; best[l,h]=k.gather(0,w[None,:,None].expand(1,C,k.shape[-1]))[0]
    # cost of slot: looked ; pick per correction heads among the 40% best heads with least-looked slots
    owner=torch.full((L,A,P),-1); newk=f.keys.clone(); newv0=f.values.clone()
    free=looked.clone()
    for r in range(H):
        for c in range(C):
            order=least[:,:,c].flatten().argsort()[:int(a.get("pool",30))].tolist()
            cand=[(free[i//A,i%A].min().item(),i) for i in order]; val,i=min(cand); l,h=divmod(i,A); v=int(free[l,h].argmin())
            owner[l,h,v]=c; newk[l,h,v]=best[l,h,c]; newv0[l,h,v]=0; free[l,h,v]=99
    used=looked[owner>=0]; print("worst look of slots taken",round(used.max().item(),1),"median",round(used.median().item(),1))
    mask=(owner>=0)
    V=heart.Vectors(newk,owner)
    class W(heart.Vectors):
        def behind(self,form,values): return KeyValue(newk,torch.where(mask[...,None],values,newv0))
    v=W(newk,owner)
    S0=S.with_forms([v.behind(f,torch.zeros_like(newk))]); h0=judge.answer(S0,second).given
    vals,ok=heart.own_values(v,f,wanted_margins(S,wrong),float(a.get("reach",.5)),lambda *_:0); tv=time.time()-t
    T=S.with_forms([v.behind(f,vals)])
    m=int(right_answers(T,wrong).sum()); kb=judge.answer(T,keep).given; hb=judge.answer(T,second).given
    acc=[float(np.mean([x==r.target for x,r in zip(h,second)])) for h in (ha,hb)]
    print(arm,"emptied alone",sum(x!=y for x,y in zip(ha,h0)),"mastered",m,"of",C,"kept changed",sum(x!=y for x,y in zip(ka,kb)),"held changed",sum(x!=y for x,y in zip(ha,hb)),"of",len(second),"acc",acc,f"s {tv:.1f}",flush=True)
