//! Suite of [`Disk`] and [`DiskFile`].

use std::io::ErrorKind;
use std::path::Path;

use crate::disk::{Disk, DiskFile, create_dir_synced, read_small_file, replace_file};

/// Checks a disk, in the existing, empty folder `root`.
pub fn check_disk<D: Disk>(disk: &D, root: &Path) {
    files_hold_what_was_written(disk, root);
    names_follow_their_files(disk, root);
    folders_are_listed_in_order(disk, root);
    locks_exclude(disk, root);
    small_files_are_replaced_whole(disk, root);
}

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn files_hold_what_was_written<D: Disk>(disk: &D, root: &Path) {
    let path = root.join("file");
    assert_eq!(kind(disk.open(&path)), Some(ErrorKind::NotFound));
    let mut file = disk.create(&path).expect("create");
    assert_eq!(kind(disk.create(&path)), Some(ErrorKind::AlreadyExists));
    assert!(file.is_empty().expect("is_empty"));
    file.write_all_at(b"world", 5).expect("write behind the end");
    file.write_all_at(b"hello", 0).expect("write");
    let mut bytes = [0; 10];
    file.read_exact_at(&mut bytes, 0).expect("read");
    assert_eq!(&bytes, b"helloworld");
    assert_eq!(kind(file.read_exact_at(&mut bytes, 1)), Some(ErrorKind::UnexpectedEof));
    file.sync_data().expect("sync");
    file.set_len(7).expect("cut");
    file.set_len(9).expect("extend");
    assert_eq!(file.len().expect("len"), 9);
    let again = disk.open(&path).expect("open");
    let mut bytes = [1; 9];
    again.read_exact_at(&mut bytes, 0).expect("read");
    assert_eq!(&bytes, b"hellowo\0\0");
    disk.remove(&path).expect("remove");
    assert!(!disk.exists(&path).expect("exists"));
    again.read_exact_at(&mut bytes, 0).expect("an open file outlives its name");
    assert_eq!(kind(disk.remove(&path)), Some(ErrorKind::NotFound));
}

fn names_follow_their_files<D: Disk>(disk: &D, root: &Path) {
    let (from, to) = (root.join("from"), root.join("to"));
    disk.create(&from).expect("create").write_all_at(b"new", 0).expect("write");
    disk.create(&to).expect("create").write_all_at(b"older", 0).expect("write");
    disk.rename(&from, &to).expect("rename replaces");
    assert!(!disk.exists(&from).expect("exists"));
    assert_eq!(disk.open(&to).expect("open").len().expect("len"), 3);
    assert_eq!(kind(disk.rename(&from, &to)), Some(ErrorKind::NotFound));
    assert_eq!(kind(disk.create(&root.join("absent").join("file"))), Some(ErrorKind::NotFound));
    disk.sync_dir(root).expect("sync of the folder");
    disk.remove(&to).expect("remove");
}

fn folders_are_listed_in_order<D: Disk>(disk: &D, root: &Path) {
    let dir = root.join("a").join("b");
    assert_eq!(kind(disk.list(&dir)), Some(ErrorKind::NotFound));
    create_dir_synced(disk, &dir).expect("create folders");
    create_dir_synced(disk, &dir).expect("they may exist");
    for name in ["2", "10", "1"] {
        disk.create(&dir.join(name)).expect("create");
    }
    assert_eq!(disk.list(&dir).expect("list"), ["1", "10", "2"].map(|name| dir.join(name)));
    assert_eq!(disk.list(&root.join("a")).expect("list"), vec![dir.clone()]);
    assert!(disk.exists(&dir).expect("exists"));
    assert!(disk.free_bytes(&dir).expect("free bytes") > 0);
}

fn locks_exclude<D: Disk>(disk: &D, root: &Path) {
    let guard = disk.lock(root).expect("lock");
    assert_eq!(kind(disk.lock(root)), Some(ErrorKind::WouldBlock));
    drop(guard);
    drop(disk.lock(root).expect("lock again"));
    assert_eq!(kind(disk.lock(&root.join("absent"))), Some(ErrorKind::NotFound));
}

fn small_files_are_replaced_whole<D: Disk>(disk: &D, root: &Path) {
    let path = root.join("small");
    for content in [&b"one"[..], b"a longer second", b"3"] {
        replace_file(disk, &path, content).expect("replace");
        assert_eq!(read_small_file(disk, &path, 100).expect("read"), content);
    }
    assert_eq!(kind(read_small_file(disk, &path, 0)), Some(ErrorKind::InvalidData));
}
