package sys

// FolderError is a folder that could not be made.
type FolderError struct {
	Path string
	Why  error
}

func (e *FolderError) Error() string { return "folder " + e.Path + ": " + e.Why.Error() }

// Unwrap returns the reason.
func (e *FolderError) Unwrap() error { return e.Why }

// MakeFolders makes a folder and those above it.
func MakeFolders(k Kernel, path string, mode uint32) error {
	for i := 1; i <= len(path); i++ {
		if i == len(path) || path[i] == '/' {
			if err := k.Mkdir(path[:i], mode); err != nil {
				return &FolderError{path[:i], err}
			}
		}
	}
	return nil
}
