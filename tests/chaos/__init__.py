"""Real masters and workers under real faults, and a checker of what came of it.

plan      what is submitted and what is broken, when: all of it from a seed; pure
jobs      what a task does, and what it must print; pure
history   everything that was done and seen, as JSON lines
story     a history arranged by task, container and worker; pure
checker   the rules that a history must keep (in rules/); pure, runs on a file as well
fleet     the master, the workers, and what is done to them
proxy     the network between them, which can be cut and stalled
load      submits and cancels, and keeps asking when the master is away
door      REST of a master that comes and goes
observer  looks at Docker, REST and the processes all the time
campaign  rounds of faults, from a fresh fleet to the last look
summary   what a history amounts to, in figures
"""
