"""The process that holds the parts together on a live box.

    worker     one queue, one engine, one event loop: start, packets, reload, stop
    rules      the lists, compiled in a child process and watched for changes
    journal    what is logged, and what is never logged
    control    the socket that `edgeblock status` asks
    notify     what systemd is told
"""
