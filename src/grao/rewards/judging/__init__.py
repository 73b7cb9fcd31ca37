"""What `grao.rewards.judge` asks and how it reads the reply.

rubric, rubrics/  what to judge by, from YAML
quoting           untrusted texts inside delimiters that they cannot leave
question          rubric, context and texts → messages
verdict           a reply → a verdict or a score
canary            does this judge obey the texts that it judges?
"""
