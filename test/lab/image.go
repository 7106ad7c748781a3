// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// imageInputs is the folder, in the module, of all that the image is made from.
const imageInputs = "test/lab/image"

// cacheFolder is where images are kept.
func cacheFolder() (string, error) {
	if dir := os.Getenv("LAB_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("can't tell where to keep the image: %w", err)
	}
	return filepath.Join(dir, "gotgtd-lab"), nil
}

// findImage returns the folder of the image that the present inputs make. It builds
// the image if it is not there, which takes some minutes the first time.
func findImage(ctx context.Context, out io.Writer) (string, error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	sum, err := hashFolder(imageInputs)
	if err != nil {
		return "", fmt.Errorf("can't tell whether the image is the present one: %w", err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFolder(cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	image := filepath.Join(cache, "image-"+sum)
	now := time.Now()
	if err := os.Chtimes(image, now, now); err == nil {
		return image, nil
	}
	fmt.Fprintln(out, "building the machines' image")
	if err := buildImage(ctx, out, image, filepath.Join(cache, "packages")); err != nil {
		return "", err
	}
	fmt.Fprintf(out, "built %s in %.0f s\n", image, time.Since(now).Seconds())
	return image, removeOthers(cache, image)
}

func buildImage(ctx context.Context, out io.Writer, image, packages string) error {
	part := image + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	log, err := os.Create(image + ".log")
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, filepath.Join(imageInputs, "build.sh"), part, packages)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = stopTime
	if err := cmd.Run(); err != nil {
		text, readErr := os.ReadFile(log.Name())
		fmt.Fprintln(out, lastLines(string(text), explainLines))
		return errors.Join(fmt.Errorf("can't build the image: %w", err), readErr)
	}
	return os.Rename(part, image)
}

// unusedTime is how long the image of other inputs is kept: another checkout may
// need it.
const unusedTime = 24 * time.Hour

// removeOthers removes images that have not been used lately.
func removeOthers(cache, image string) error {
	old, err := filepath.Glob(filepath.Join(cache, "image-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range old {
		info, err := os.Stat(path)
		if err == nil && path != image && time.Since(info.ModTime()) > unusedTime {
			err = os.RemoveAll(path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// hashFolder makes a short hash of the names, permissions and contents of all files.
func hashFolder(dir string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %v %d\n", path, info.Mode()&0o111 != 0, len(text))
		h.Write(text)
		return nil
	})
	return hex.EncodeToString(h.Sum(nil)[:6]), err
}

// lockFolder waits until no other process has the folder locked, and locks it.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("can't lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}
