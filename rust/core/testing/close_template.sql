-- Nobody can connect any more, so it can always be copied; and it is finished.
ALTER DATABASE {name} ALLOW_CONNECTIONS false
