"""GET /v1/models: the base, the newest version of every prompt, and every alias, as far as the key may use them."""

from epigraph.errors import NotFound
from epigraph.serve.keys import Key
from epigraph.serve.names import ROUTER, read_model, unknown_model
from epigraph.serve.service import Service
from epigraph.serve.shelf import Listed
from epigraph.serve.wire.models import ModelCard, ModelList


def models(service: Service, key: Key) -> ModelList:
    """All of them."""
    cards = [_base(service)] if key.may_use(None) else []
    cards += [_router(service)] if service.signpost.candidates(key) is not None else []
    cards += [_card(service, listed) for listed in service.shelf.listed() if key.may_use(listed.id)]
    return ModelList(data=cards)


def model(service: Service, key: Key, name: str) -> ModelCard:
    """One of them; versions such as routing@3 as well. Refused (404) if there is none."""
    if name == ROUTER:
        if service.signpost.candidates(key) is None:
            raise unknown_model(name, "The library has no router for this base.")
        return _router(service)
    reference = read_model(name, service.base.name)
    key.check(reference)
    if reference is None:
        return _base(service)
    try:
        return _card(service, service.shelf.listing(reference))
    except NotFound as error:
        raise unknown_model(name) from error


def _base(service: Service) -> ModelCard:
    name = service.base.name
    return ModelCard(id=name, created=service.created, root=name, parent=None, max_model_len=service.base.context)


def _router(service: Service) -> ModelCard:
    base = service.base
    return ModelCard(id=ROUTER, created=service.created, root=ROUTER, parent=base.name, max_model_len=base.context)


def _card(service: Service, listed: Listed) -> ModelCard:
    card = listed.card
    task = card.task
    return ModelCard(
        id=listed.id,
        created=listed.created,
        root=listed.root,
        parent=service.base.name,
        max_model_len=max(0, service.base.context - sum(card.lengths)),
        kind=task.get("kind") if isinstance(task.get("kind"), str) else None,
        labels=sorted(task["labels"]) if isinstance(task.get("labels"), dict) and task["labels"] else None,
        scores=_finite(dict(card.scores)) or None,
    )


def _finite(value: object) -> dict[str, object]:
    """The scores as JSON knows them: without numbers that are none."""
    found: dict[str, object] = {}
    for name, inner in value.items() if isinstance(value, dict) else ():
        if isinstance(inner, dict):
            found[str(name)] = _finite(inner)
        elif not isinstance(inner, float) or inner == inner:
            found[str(name)] = inner
    return found
