package sys

const sysFinitModule = 313
