"""The processes that hold the parts together on a live box.

    supervisor the first process: rules, kernel ruleset, control, metrics; starts, watches and replaces the workers
    worker     a process of its own: one queue, one engine, one event loop
    board      what workers have counted, in memory that outlives them
    rules      the lists, compiled in a child process and watched for changes
    journal    what is logged, and what is never logged
    control    the socket that `edgeblock status` asks
    metrics    what Prometheus is told
    notify     what systemd is told
"""
