"""What grao takes from inside torch and transformers: private names, re-implemented layers, replaced forwards.

One file per thing that is used. Each names what it relies on; its test in `tests/compat` fails when that changes.
Tried with torch 2.11 to 2.14 and transformers 5.17 to 5.24.
"""
