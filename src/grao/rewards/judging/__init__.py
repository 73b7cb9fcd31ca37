"""What `grao.rewards.judge` asks and how it reads the reply.

rubric, rubrics/  what to judge by, from YAML
quoting           texts that nobody vouches for, inside delimiters that they cannot leave
question          rubric, context and texts → messages
verdict           a reply → the verdict that it is, or nothing
canary            does this judge obey the texts that it judges?
"""
