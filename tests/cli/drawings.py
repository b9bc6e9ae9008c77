"""What the scenes of `traces.py` look like in a terminal."""

RETRIED = """\
2027-01-15 08:16:40.000 UTC · trace 6513270e
                                  0        2 s       4 s
✓ chat Llama-3.3-70B-Instruct-T…  ───────────────────────  4.65 s  ok
  3 attempts · 10 + 3 tokens · $0.0000097
  meta-llama/Llama-3.3-70B-Instruct-Turbo
  1 initial                       ━━━╸                     800 ms  500
  wait, backoff                      ┈┈                    250 ms
  2 retry                              ━╸                  300 ms  429
  wait, retry-after                     ┈┈┈┈┈┈┈┈┈┈┈        2.10 s
  3 retry                                          ━━━━━━  1.20 s  ok $0.0000097

━━ under way   ┈┈ wait before a retry
"""

NARROW = """\
2027-01-15 08:16:46.620 UTC
trace 8d116ece
0            500 ms        1 s
✓ chat Llama-3.3-7… ok  1.10 s
──────────────────────────────
  2 attempts · 10 + 3 tokens
  at least $0.0000097
  meta-llama/Llama-3.3-70B-Ins
  truct-Turbo
  1 initial       lost  1.10 s
━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
  2 hedge          won  600 ms
             ╺━━━━━━━━━━━━━━━━

━━ under way
"""

ALL = """\
2027-01-15 08:16:40.000 UTC · trace 6513270e
                                  0        2 s      4 s
✓ chat Llama-3.3-70B-Instruct-T…  ──────────────────────  4.65 s  ok
  3 attempts · 10 + 3 tokens · $0.0000097
  meta-llama/Llama-3.3-70B-Instruct-Turbo
  1 initial                       ━━━╸                    800 ms  500
  wait, backoff                      ┈┈                   250 ms
  2 retry                             ╺━                  300 ms  429
  wait, retry-after                     ┈┈┈┈┈┈┈┈┈┈        2.10 s
  3 retry                                         ━━━━━━  1.20 s  ok $0.0000097

2027-01-15 08:16:44.650 UTC · trace 36f675cc
                                  0          1 s
✓ chat Llama-3.3-70B-Instruct-T…  ──────────────────────  1.87 s  ok
  10 + 20 tokens · cost not known · first token after 350 ms · 13 tokens/s
  meta-llama/Llama-3.3-70B-Instruct-Turbo
  1 initial                       ────━━━━━━━━━━━━━━━━━━  1.87 s  ok

2027-01-15 08:16:46.620 UTC · trace 8d116ece
                                  0         500 ms
✓ chat Llama-3.3-70B-Instruct-T…  ──────────────────────  1.10 s  ok
  2 attempts · 10 + 3 tokens · at least $0.0000097
  meta-llama/Llama-3.3-70B-Instruct-Turbo
  1 initial                       ━━━━━━━━━━━━━━━━━━━━━━  1.10 s  lost
  2 hedge                                   ━━━━━━━━━━━━  600 ms  won $0.0000097

2027-01-15 08:16:47.720 UTC · trace 953f48f1
                                  0         500 ms
✓ chat Llama-3.3-70B-Instruct-T…  ──────────────────────  1.10 s  ok
  served by Qwen/Qwen3-32B · 2 attempts · 10 + 3 tokens · $0.00002
  meta-llama/Llama-3.3-70B-Instruct-Turbo
  1 initial                       ━━━━                    200 ms  503
  falls back to Qwen3-32B             ◆                           503
  2 fallback Qwen3-32B                ━━━━━━━━━━━━━━━━━━  900 ms  ok $0.00002

2027-01-15 08:16:48.820 UTC · trace 8e81973e
                                  0          200 ms
✓ chat Llama-3.3-70B-Instruct-T…  ──────────────────────  400 ms  ok
  10 + 3 tokens · $0.0000097 · meta-llama/Llama-3.3-70B-Instruct-Turbo
  1 initial                       ━━━━━━━━━━━━━━━━━━━━━━  400 ms  ok

2027-01-15 08:17:01.220 UTC · trace 92276658
                                  0          500 µs
✓ chat Llama-3.3-70B-Instruct-T…  ╸                         0 ms  cache hit
  $0 · cached 12.0 s ago · meta-llama/Llama-3.3-70B-Instruct-Turbo

2027-01-15 08:17:01.220 UTC · trace 1a61dbe2 · answer_ticket
                                  0             1 s
✓ chat Llama-3.3-70B-Instruct-T…  ──────────────────────  1.50 s  ok
  10 + 3 tokens · $0.0000097 · meta-llama/Llama-3.3-70B-Instruct-Turbo
  line, concurrency limit         ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌         1.00 s
  1 initial                                     ╺━━━━━━━  500 ms  ok
✓ chat Llama-3.3-70B-Instruct-T…  ──────────────╴         1.00 s  ok
  10 + 3 tokens · $0.0000097 · meta-llama/Llama-3.3-70B-Instruct-Turbo
  1 initial                       ━━━━━━━━━━━━━━╸         1.00 s  ok

2027-01-15 08:17:02.720 UTC · trace 881ed162
                                  0          50 ms
✗ chat Llama-3.3-70B-Instruct-T…  ──────────────────────  100 ms  401
  AuthenticationFailed · not tried again: not retryable · $0
  meta-llama/Llama-3.3-70B-Instruct-Turbo
  1 initial                       ━━━━━━━━━━━━━━━━━━━━━━  100 ms  401

2027-01-15 08:17:02.820 UTC · trace 5c90a958 · agent
                                  0         1 s
✓ chat Llama-3.3-70B-Instruct-T…  ─────────               900 ms  ok
  10 + 3 tokens · $0.00001 · meta-llama/Llama-3.3-70B-Instruct-Turbo
  1 initial                       ━━━━━━━━━               900 ms  ok
✓ tool weather                             ━━━━━━━        700 ms  ok
✓ chat Llama-3.3-70B-Instruct-T…                  ──────  600 ms  ok
  10 + 3 tokens · $0.0000097 · meta-llama/Llama-3.3-70B-Instruct-Turbo
  1 initial                                       ━━━━━━  600 ms  ok

━━ under way   ── until the first token   ━━ streaming   ┈┈ wait before a retry
╌╌ in line for a permit   ◆ event
"""
