package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// LoadForChange is Load for somebody who is about to add definitions: a folder that
// has none yet is an empty plan.
func LoadForChange(dir string, options Options) (*Plan, error) {
	if info, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return Empty(options), nil
	} else if err == nil && info.IsDir() {
		found := 0
		for _, kind := range []string{"events", "metrics"} {
			files, err := definitionFiles(filepath.Join(dir, kind), maxDepth, 1)
			if err != nil {
				return nil, fmt.Errorf("read the definitions: %w", err)
			}
			found += len(files)
		}
		if found == 0 {
			return Empty(options), nil
		}
	}
	return Load(dir, options)
}

// CheckFiles says what would be wrong with the definitions in dir if files were added to
// them, or put into the place of those of the same names.
func CheckFiles(dir string, files []File, options Options) error {
	all := map[string][]byte{}
	for _, kind := range []string{"events", "metrics"} {
		paths, err := definitionFiles(filepath.Join(dir, kind), maxDepth, maxFiles)
		if err != nil {
			return err
		}
		for _, path := range paths {
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			if all[filepath.ToSlash(name)], err = readAtMost(path, maxFile); err != nil {
				return err
			}
		}
	}
	for _, f := range files {
		all[f.Name] = f.Text
	}
	faults := &faultList{}
	if len(all) > maxFiles {
		faults.add(Fault{File: dir, Message: fmt.Sprintf("it would hold %d definitions; %d are allowed", len(all), maxFiles)})
	}
	var together []File
	for _, name := range slices.Sorted(maps.Keys(all)) {
		together = append(together, File{name, all[name]})
	}
	if parseFiles(together, options, faults); len(faults.list) == 0 {
		return nil
	}
	return faults.all()
}

// WriteFiles writes files below dir. One that is there already is an error, and then
// none is written, unless replace says that they may be replaced.
func WriteFiles(dir string, files []File, replace bool) error {
	paths := make([]string, len(files))
	var taken []error
	for i, f := range files {
		paths[i] = filepath.Join(dir, filepath.FromSlash(f.Name))
		if _, err := os.Lstat(paths[i]); err == nil && !replace {
			taken = append(taken, fmt.Errorf("%s is there already", paths[i]))
		}
	}
	if len(taken) > 0 {
		return errors.Join(taken...)
	}
	for i, f := range files {
		if err := os.MkdirAll(filepath.Dir(paths[i]), 0o755); err != nil {
			return err
		}
		// A new file in the place of the old one: whoever reads sees one or the other.
		fresh := paths[i] + ".tmp"
		if err := os.WriteFile(fresh, f.Text, 0o644); err != nil {
			return err
		}
		if err := os.Rename(fresh, paths[i]); err != nil {
			return errors.Join(err, os.Remove(fresh))
		}
	}
	return nil
}
