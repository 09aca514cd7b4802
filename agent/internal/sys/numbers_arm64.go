package sys

const (
	sysFinitModule = 273
	sysMemfdCreate = 279
	sysSetns       = 268
)
