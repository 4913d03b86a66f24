"""Real masters and workers under real faults, and a checker of the results.

plan       the submits and the faults, drawn from a seed; pure
jobs       what a task does, and its expected output; pure
history    everything that was done and observed, as JSON lines
index      a history indexed by task, container and worker; pure
checker    the rules for a history (in rules/); pure, also for saved files
fleet      the master, the workers, and the faults to inject
proxy      the network between them, which can be cut and stalled
load       submits and cancels, which are repeated while the master is down
rest       a REST client of a master that is often down
observer   watches Docker, REST and the processes
campaign   rounds of faults, from a new fleet to the final state
summary    counts over a history
synthetic  histories for the tests of the checker
mutations  changes of a clean history that the checker must find
"""
