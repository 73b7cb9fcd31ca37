"""Asking an OpenAI-compatible endpoint, and paying once for each answer whatever fails.

client       Endpoint.ask: a question → a value, or why there is none; the one file that knows `openai`
chat_body    the reply in a response's bytes, or what is wrong with them
backoff      how long to wait before a request is sent again
breaker      when an endpoint is down, rather than busy
reply_cache  every reply on the disk before anybody reads it
usage        requests, faults, tokens, money
"""
