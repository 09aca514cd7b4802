package sys

import (
	"syscall"
	"unsafe"
)

const (
	ext4Resize   = 0x40086610 // EXT4_IOC_RESIZE_FS
	xfsGeometry  = 0x80705864 // XFS_IOC_FSGEOMETRY_V1
	xfsGrowBlock = 0x4010586e // XFS_IOC_FSGROWFSDATA
)

// GrowFS implements Kernel. Those of other types have no free space to gain.
func (Linux) GrowFS(target, fstype string, bytes uint64) error {
	fd, err := syscall.Open(target, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	switch fstype {
	case "ext4":
		var about syscall.Statfs_t
		if err := syscall.Fstatfs(fd, &about); err != nil {
			return err
		}
		blocks := bytes / uint64(about.Bsize)
		return ioctl(fd, ext4Resize, unsafe.Pointer(&blocks))
	case "xfs":
		var geometry struct {
			blockSize, _, _, _, _, _, _, inodePercent uint32
			_                                         [80]byte
		}
		if err := ioctl(fd, xfsGeometry, unsafe.Pointer(&geometry)); err != nil {
			return err
		}
		grow := struct {
			blocks       uint64
			inodePercent uint32
			_            uint32
		}{blocks: bytes / uint64(geometry.blockSize), inodePercent: geometry.inodePercent}
		return ioctl(fd, xfsGrowBlock, unsafe.Pointer(&grow))
	}
	return syscall.EOPNOTSUPP
}
