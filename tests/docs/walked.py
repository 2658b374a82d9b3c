"""The pages whose commands are run, by the state that each starts from."""

DEMO = (
    "README.md",
    "docs/quickstart.md",
    "docs/steering.md",
    "docs/monitoring.md",
    "docs/structured-output.md",
    "docs/guide/steering-and-saes.md",
    "docs/guide/strengths.md",
    "docs/recipes/open-webui.md",
    "docs/recipes/librechat.md",
    "docs/recipes/rag-embeddings.md",
    "docs/recipes/ab-tests.md",
    "docs/operations/performance.md",
    "docs/operations/troubleshooting.md",
    "docs/operations/security.md",
)
"""The demo is running."""

CLIENTS = ("docs/recipes/langchain.md", "docs/recipes/llm.md")
"""The demo is running, and the client is installed in an environment of its own (`make test-clients`)."""

EMPTY = (
    "CONTRIBUTING.md",
    "docs/library.md",
    "docs/recipes/gemma-2-2b.md",
    "docs/recipes/llama-scope.md",
    "docs/recipes/gpt2.md",
    "docs/recipes/own-sae.md",
    "docs/operations/memory.md",
)
"""No server runs: the page starts its own, on a hub of tiny models."""

ELSEWHERE = {
    "docs/operations/docker.md": ("tests/container/test_operations.py::test_every_command_is_checked",),
    "docs/operations/systemd.md": (
        "tests/container/test_operations.py::test_the_service_is_installed_as_documented",
        "tests/container/test_operations.py::test_other_commands_refer_to_the_service",
    ),
    "docs/operations/running.md": ("tests/e2e/test_running_page.py::test_documented_commands_work",),
    "docs/python.md": ("tests/notebook/test_docs_and_examples.py::test_the_page_runs",),
    "docs/profiles.md": (
        "tests/api/admin/test_profiles_exchange.py::test_documented_commands_run",
        "tests/api/admin/test_profiles_exchange.py::test_documented_example_is_valid",
    ),
}
"""Page → the tests that run its commands."""
