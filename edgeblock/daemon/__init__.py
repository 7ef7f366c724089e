"""The processes that hold the parts together on a live box.

    supervisor the first process: holds the following parts together, in the order in which they start and end
    workers    a worker at every queue: started, followed, replaced, ended
    kernel     the first stage and the kernel rules: put there, counted, taken away
    reload     lists compiled, staged in the kernel, given to the workers, committed; in_force has the outcome
    status     what the daemon says of itself
    worker     a process of its own: one queue, one engine, one event loop
    board      what workers have counted, in memory that outlives them
    compiling  the lists, compiled in a child process
    journal    what is logged, and what is never logged
    control    the socket that `edgeblock status` asks
    metrics    what Prometheus is told
    notify     what systemd is told
"""
