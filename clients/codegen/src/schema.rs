//! Finds and compiles the schemas that clients speak. Comments are kept: they become documentation in the output.

use std::path::Path;

use anyhow::{Context, Result, bail};
use prost_reflect::{DescriptorPool, MessageDescriptor};

/// The schemas, relative to the root of the workspace: the protocol, and the demo game's actions and replies.
pub const FILES: [&str; 2] = ["proto/schema/client.proto", "games/frontier/schema/frontier.proto"];

/// One schema file: its name in generated code, where it is, and its messages in the order of the file, outer before inner.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// From the package: `marchland.client.v1` is `client`.
    pub name: String,
    /// Relative to the root of the workspace.
    pub path: &'static str,
    /// All messages.
    pub messages: Vec<MessageDescriptor>,
}

/// Compiles [`FILES`] below `root`.
pub fn load(root: &Path) -> Result<Vec<Namespace>> {
    FILES.iter().map(|path| load_file(root, path)).collect()
}

fn load_file(root: &Path, path: &'static str) -> Result<Namespace> {
    let file = root.join(path);
    let folder = file.parent().with_context(|| format!("{path} has no folder"))?;
    let mut compiler = protox::Compiler::new([folder])?;
    compiler.include_source_info(true).include_imports(false);
    compiler.open_file(&file).with_context(|| format!("cannot compile {path}"))?;
    let pool: DescriptorPool = compiler.descriptor_pool();
    let descriptor = pool.files().last().with_context(|| format!("{path} is empty"))?;
    let mut messages = Vec::new();
    for message in descriptor.messages() {
        add(&message, &mut messages);
    }
    if messages.is_empty() {
        bail!("{path} has no messages");
    }
    Ok(Namespace { name: namespace(descriptor.package_name())?, path, messages })
}

fn add(message: &MessageDescriptor, out: &mut Vec<MessageDescriptor>) {
    out.push(message.clone());
    for child in message.child_messages() {
        add(&child, out);
    }
}

/// The last part of a package that is no version.
fn namespace(package: &str) -> Result<String> {
    let is_version = |part: &str| part.strip_prefix('v').is_some_and(|rest| rest.parse::<u32>().is_ok());
    let part = package.rsplit('.').find(|part| !part.is_empty() && !is_version(part));
    Ok(part.with_context(|| format!("package {package:?} gives no name"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::namespace;

    #[test]
    fn packages_give_names_without_versions() {
        assert_eq!(namespace("marchland.client.v1").unwrap(), "client");
        assert_eq!(namespace("frontier").unwrap(), "frontier");
        assert_eq!(namespace("studio.vault").unwrap(), "vault");
        assert!(namespace("v1").is_err());
        assert!(namespace("").is_err());
    }
}
