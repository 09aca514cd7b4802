package sys

import (
	"strings"
	"syscall"
)

// modulesFile has lines "group: /path/of/first.ko /path/of/second.ko", in load order.
const modulesFile = "/etc/utilityvm/modules"

const commandLine = "/proc/cmdline"

// parameters returns those that the kernel's command line has for the module in a file, as module.name=value: the kernel itself gives them to
// what is built in and leaves modules to whoever loads them.
func parameters(line, path string) string {
	var found []string
	name := path[strings.LastIndexByte(path, '/')+1:]
	prefix := strings.TrimSuffix(name, ".ko") + "."
	for _, word := range strings.Fields(line) {
		if word == "--" {
			break
		}
		if strings.HasPrefix(word, prefix) {
			found = append(found, word[len(prefix):])
		}
	}
	return strings.Join(found, " ")
}

// ModuleError is a kernel module that could not be loaded, or the list of them that could not be read.
type ModuleError struct {
	Path string
	Why  error
}

func (e *ModuleError) Error() string { return "module " + e.Path + ": " + e.Why.Error() }

// Unwrap returns the reason.
func (e *ModuleError) Unwrap() error { return e.Why }

// LoadModules loads the modules of one group. A kernel with everything built in has no list.
func LoadModules(k Kernel, group string) error {
	text, err := k.ReadFile(modulesFile)
	if err == syscall.ENOENT {
		return nil
	}
	if err != nil {
		return &ModuleError{modulesFile, err}
	}
	for _, line := range strings.Split(string(text), "\n") {
		name, paths, _ := strings.Cut(line, ":")
		if name != group {
			continue
		}
		line, _ := k.ReadFile(commandLine) // where that cannot be read nothing was said
		for _, path := range strings.Fields(paths) {
			if err := k.LoadModule(path, parameters(string(line), path)); err != nil {
				return &ModuleError{path, err}
			}
		}
	}
	return nil
}
