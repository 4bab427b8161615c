"""Every hook, argument and attribute that the probes ask of vLLM, held against the sources of all its releases.

Where something moves in a new release this fails with the name of what moved; where a table claims less or more than there is,
too. Releases that cannot be had (no network, nothing in the cache) skip the tests that need them.
"""

import ast
from typing import NamedTuple

import hooks
import pytest
import reads
import releases
import table
from conftest import VERSIONS


def of_vllm():
    return [hook for hook in hooks.hooks() if hook.module.startswith("vllm.")]


def there(release, hook):
    if hook.kind == "MODULE":
        return release.module(hook.module) is not None
    return release.owns(hook.module, hook.qualname) is not None


def test_the_sources_are_read():
    assert len(of_vllm()) > 70, "the probes' tables were not understood"
    assert len(hooks.arguments()) > 20
    assert len(hooks.names_read()) > 100


def test_hooks(release):
    wrong = []
    for hook in of_vllm():
        claimed, found = hooks.within(hook.versions, release.number), there(release, hook)
        if claimed != found:
            wrong.append(f"{hook.probe}: {hook.module}:{hook.qualname} is {'there' if found else 'gone'}, its row says {hook.versions}")
        if not found and not hook.optional:
            wrong.append(f"{hook.probe}: {hook.module}:{hook.qualname} is needed in every release")
    assert not wrong, f"vLLM {release.version}:\n" + "\n".join(wrong)


def parameters(function):
    return [argument.arg for argument in function.args.posonlyargs + function.args.args]


class Later(NamedTuple):
    qualname: str


def test_arguments(release):
    """An argument is looked for at a place and by a name: some hook of the release has it there."""
    functions = {}
    for hook in of_vllm():
        node = release.owns(hook.module, hook.qualname) if hook.kind != "MODULE" else None
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            functions[hook] = parameters(node)
    for module, qualname in reads.HOOKED_LATER:
        node = release.owns(module, qualname)
        functions[Later(qualname)] = parameters(node) if node else []
    wrong = []
    for file, position, name in sorted(hooks.arguments()):
        having = [hook for hook, names in functions.items() if name in names]
        places = {functions[hook].index(name) for hook in having}
        since = reads.ARGUMENTS_SINCE.get(name, "0.11.0+")
        if not having and hooks.within(since, release.number):
            wrong.append(f"{file}: no hooked callable has an argument {name}")
        elif having and position not in places:
            wrong.append(f"{file}: {name} is looked for at {position}, it is at {sorted(places)} of {[hook.qualname for hook in having]}")
    assert not wrong, f"vLLM {release.version}:\n" + "\n".join(wrong)


def test_attributes(release):
    wrong = []
    for name, owners, versions in reads.READS:
        found = any(name in (release.attributes(*owner.split(":")) or ()) for owner in owners)
        if found != hooks.within(versions, release.number):
            wrong.append(f"{name} of {' or '.join(owners)} is {'there' if found else 'gone'}, the table says {versions}")
    assert not wrong, f"vLLM {release.version}:\n" + "\n".join(wrong)


def test_every_name_that_is_read_is_in_the_table():
    known = {name for name, _, _ in reads.READS} | {name for names in reads.NOT_VLLM.values() for name in names.split()}
    unknown = {name: files for name, files in hooks.names_read().items() if name not in known}
    assert not unknown, f"say in tests/compat/reads.py whose these are: {unknown}"
    assert not known - set(hooks.names_read()), "rows for names that no probe reads any longer"


def test_the_document_says_the_same():
    if not VERSIONS:
        pytest.skip("the package index does not answer, and no release is in the cache")
    written = table.DOCUMENT.read_text()
    named = table.versions_in(written)  # the index may not name all of them now
    shown = {version for version in VERSIONS if releases.number(version) <= releases.number(named[-1])}
    shown = sorted(shown.union(named), key=releases.number)
    assert written == table.document(shown), "run: python3 tests/compat/table.py --write"
