"""The server: thousands of named prompts on one frozen base, behind the HTTP interface that OpenAI's clients speak.

request ─ rendering ─► Generation | Classification ─ backend (batcher | vLLM) ─► events ─ answers ─► JSON | server-sent events

Nothing heavy is imported here; ``app.create_app`` makes the application, ``running.serve`` runs it.
"""
