package sys

const sysFinitModule = 273
