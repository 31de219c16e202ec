//! The generated files are those on disk, and say what the code says.

use std::fs;

use marchland_codegen::{Output, generate, stale, tables, workspace_root};
use marchland_proto::codes::Code;
use marchland_proto::records::{ClientMotion, client_motions};

#[test]
fn files_on_disk_are_up_to_date() {
    let root = workspace_root();
    let outputs = generate(&root).unwrap();
    let names: Vec<_> = stale(&root, &outputs).iter().map(|output| output.path.clone()).collect();
    assert!(names.is_empty(), "{names:?} out of date: run `cargo run -p marchland-codegen`");
}

#[test]
fn a_changed_or_missing_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let output = Output { path: "a.js".into(), content: "new".into() };
    assert_eq!(stale(folder.path(), std::slice::from_ref(&output)).len(), 1, "missing");
    fs::write(folder.path().join("a.js"), "old").unwrap();
    assert_eq!(stale(folder.path(), std::slice::from_ref(&output)).len(), 1, "changed");
    fs::write(folder.path().join("a.js"), "new").unwrap();
    assert_eq!(stale(folder.path(), std::slice::from_ref(&output)).len(), 0);
}

#[test]
fn the_table_of_codes_is_complete() {
    let source = fs::read_to_string(workspace_root().join(tables::CODES)).unwrap();
    let lines = tables::codes(&source).unwrap();
    assert_eq!(lines.len(), Code::ALL.len());
    for (line, code) in lines.iter().zip(Code::ALL) {
        assert_eq!((line.number, line.name.as_str()), (code as u32, format!("{code:?}").as_str()));
    }
}

/// The bytes of the worked example in `proto/README.md`.
fn example() -> Vec<u8> {
    let readme = fs::read_to_string(workspace_root().join(tables::README)).unwrap();
    let block = readme.split_once("```hex\n").unwrap().1.split_once("```").unwrap().0;
    block.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn the_worked_example_of_motion_reads_as_described() {
    let mut read = Vec::new();
    client_motions(&example(), |motion| read.push(motion)).unwrap();
    assert_eq!(example().len(), 32);
    assert_eq!(
        read,
        [
            ClientMotion::Delta { alias: 1, by: [16, 0, -3], yaw: 64 },
            ClientMotion::Delta { alias: 5, by: [-1, 0, 0], yaw: 128 },
            ClientMotion::Absolute { alias: 7, x: 6400, y: None, z: -3200, yaw: 0 },
            ClientMotion::Absolute { alias: 2, x: -1, y: Some(128), z: 64, yaw: 192 },
        ]
    );
}
