"""One file for each peer: CONTRACT, SETTING, DISTRIBUTION, SETTLED, TABLES, and how to install, enqueue and serve.

    CONTRACT      what it promises
    SETTING       how it is set, in words, for each variant
    DISTRIBUTION  the package whose version is told, or None
    SETTLED       SQL that tells whether all units have ended durably
    COMPLETED     the same without those given up, where that differs
    TWICE         SQL that counts units ended more than once, where the queue keeps what tells it
    ENDED         SQL that counts the units that have ended well
    TABLES        where the state of its units is, for seeing whether a late end was accepted
    install(conninfo), producer(conninfo), serve(conninfo, unit)

Peers are imported in functions, so that the rest can be read where they are not installed.
"""
