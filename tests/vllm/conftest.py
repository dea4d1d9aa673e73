"""A real vLLM server on this CPU; run by `make test-vllm`, which says in $EPIGRAPH_VLLM which Python has it."""

import os

collect_ignore_glob = [] if os.environ.get("EPIGRAPH_VLLM") else ["*_test.py"]
