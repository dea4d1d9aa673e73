"""POST /tokenize, POST /detokenize, GET /tokenizer_info: the base's tokenizer, for clients that count or cut by tokens."""

from typing import Any

from epigraph.serve.faults import bad
from epigraph.serve.service import Service
from epigraph.serve.turns import tokens_of
from epigraph.serve.wire.tokens import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest, TokenizerInfo

SAID = ("add_bos_token", "add_eos_token", "unk_token", "padding_side", "truncation_side")


def tokenize(service: Service, request: TokenizeRequest) -> Tokenized:
    """The token ids of a text or of a chat."""
    base = service.base
    if (request.prompt is None) == (request.messages is None):
        raise bad("give either prompt or messages.", param="prompt")
    if request.messages is not None:
        ids = tokens_of(request.messages, base, answer=request.add_generation_prompt)
    else:
        begin = [base.bos] if request.add_special_tokens and base.bos is not None else []
        ids = [*begin, *base.tokenize(request.prompt or "")]
    texts = [service.pieces.text(token) for token in ids] if request.return_token_strs else None
    return Tokenized(count=len(ids), max_model_len=base.context, tokens=ids, token_strs=texts)


def detokenize(service: Service, request: DetokenizeRequest) -> Detokenized:
    """The text of token ids, special tokens included."""
    wrong = next((token for token in request.tokens if token >= service.pieces.size), None)
    if wrong is not None:
        raise bad(f"token id {wrong} was given; the base has 0 to {service.pieces.size - 1}.", param="tokens")
    return Detokenized(prompt=str(service.base.tokenizer.decode(request.tokens)))


def tokenizer_info(service: Service) -> TokenizerInfo:
    """What a client needs to make the same tokens."""
    tokenizer = service.base.tokenizer
    kept = {name: value for name in SAID if isinstance(value := getattr(tokenizer, name, None), str | int | bool)}
    template: Any = tokenizer.chat_template
    return TokenizerInfo(
        tokenizer_class=type(tokenizer).__name__,
        eos_token=tokenizer.eos_token,
        bos_token=tokenizer.bos_token,
        pad_token=tokenizer.pad_token,
        chat_template=template if isinstance(template, str | dict) else None,
        **kept,
    )
