"""What goes over the wire, one file an endpoint: OpenAI's fields, vLLM's extras, and ours."""
