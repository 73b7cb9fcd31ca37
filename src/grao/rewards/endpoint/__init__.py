"""Ask an OpenAI-compatible endpoint, and pay once for each answer, despite failures.

client       Endpoint.ask: a question → a value, or why there is none; the only file that uses `openai`
chat_body    the reply in a response's bytes, or what is wrong with them
backoff      how long to wait before a retry
breaker      when an endpoint is down, rather than busy
reply_cache  every reply on disk before it is used
usage        requests, faults, tokens, cost
"""
