"""What several of these tests name, and a cluster's catalogue and rights without the cluster."""

from dataclasses import replace

from kubevo_api.access import Caller, Unauthenticated
from kubevo_api.catalogue import Entry, Index

TOKEN = "t" * 43
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
EXPERIMENTS = "/api/v1/namespaces/local/experiments"


def entry(namespace, name, directory, *, status=None, generations=30):
    document = {
        "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}"},
        "spec": {
            "environment": {"id": "CartPole-v1"},
            "policy": {"network": "mlp"},
            "budget": {"maxGenerations": generations},
        },
        "status": status or {},
    }
    return Entry(document, directory)


class Catalogue:
    """Experiments that are simply there; patches are merged as the API server does it."""

    mode = "cluster"
    is_ready = True

    def __init__(self):
        self.index = Index()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        pass

    async def patch(self, found, change):
        spec = dict(found.document["spec"])
        for name, value in change.items():
            spec[name] = {**spec[name], **value} if isinstance(value, dict) else value
        changed = replace(found, document={**found.document, "spec": spec})
        self.index.put(changed)
        return changed


class Access:
    """Rights by namespace; a token is its caller's name."""

    def __init__(self):
        self.rights = {}
        self.asked = []

    async def identify(self, token):
        if token not in self.rights:
            raise Unauthenticated("nobody")
        return Caller(token, (), token)

    async def allows(self, caller, verb, namespace, name):
        self.asked.append((verb, namespace, name))
        return verb in self.rights[caller.name].get(namespace, ())
