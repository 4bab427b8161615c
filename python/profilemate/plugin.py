"""What vLLM calls in every one of its processes (entry point group `vllm.general_plugins`).

By then modules of vLLM may be imported already; the extension patches those too. It is the same code, and does its
work once per process, however many ways led to it.
"""


def register() -> None:
    """Looks at the settings afresh and installs the hooks if they say so. Never raises."""
    try:
        import _profilemate  # type: ignore[import-not-found]

        _profilemate.register()
    except Exception:  # a profiler that cannot start must not stop a server
        pass
