package sys

const (
	sysFinitModule = 273
	sysSetns       = 268
)
