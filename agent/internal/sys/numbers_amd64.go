package sys

const (
	sysFinitModule = 313
	sysSetns       = 308
)
