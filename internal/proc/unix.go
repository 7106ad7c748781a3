// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// UnixListeners returns the processes that have a listening unix socket with this path open, none
// if they can't be seen: after upgrades that is not who began to listen.
func UnixListeners(path string) (pids []int) {
	f, err := os.Open("/proc/net/unix")
	if err != nil {
		return nil
	}
	defer f.Close()
	for _, inode := range listeningUnix(f, path) {
		pids = append(pids, owners("socket:["+inode+"]")...)
	}
	return pids
}

// acceptsFlag is __SO_ACCEPTCON as /proc/net/unix has it.
const acceptsFlag = "00010000"

// listeningUnix are the inodes of the sockets in a table of unix(7) that listen on a path.
func listeningUnix(table io.Reader, path string) (inodes []string) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		// Num RefCount Protocol Flags Type St Inode Path; the last may have blanks
		f := strings.SplitN(strings.Join(strings.Fields(lines.Text()), " "), " ", 8)
		if len(f) == 8 && f[3] == acceptsFlag && f[7] == path {
			inodes = append(inodes, f[6])
		}
	}
	return inodes
}

// Locker names the process that has a lock of flock(2) on a file, as far as it can be seen.
func Locker(file *os.File) string {
	if pid := locker(file); pid > 0 {
		return Name(pid)
	}
	return "another process"
}

// locker is 0 for a process that can't be seen.
func locker(file *os.File) int {
	table, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer table.Close()
	info, err := file.Stat()
	if err != nil {
		return 0
	}
	st := info.Sys().(*syscall.Stat_t)
	inode := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		// 1: FLOCK ADVISORY WRITE 19087 00:1b:2618073 0 EOF
		if f := strings.Fields(lines.Text()); len(f) >= 6 && f[1] == "FLOCK" && f[5] == inode {
			pid, _ := strconv.Atoi(f[4])
			return pid
		}
	}
	return 0
}
