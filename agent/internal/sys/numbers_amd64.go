package sys

const (
	sysFinitModule = 313
	sysMemfdCreate = 319
	sysSetns       = 308
)
