//! `marchland certs`: certificates for clusters that have no authority of their own yet.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use marchland_proto::net::{Authority, PeerIdentity, Role, make_authority, make_node_certificate};
use marchland_types::{NodeId, WorldId};

/// Arguments of `marchland certs`.
#[derive(Args, Clone, Debug)]
pub struct CertsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Make an authority: authority.pem, which every node trusts, and authority.key, which stays with you.
    #[command(after_help = "Example: marchland certs authority --cluster live --out certs")]
    Authority {
        /// Name of the cluster.
        #[arg(long)]
        cluster: String,
        /// Folder for the two files; made if absent.
        #[arg(long)]
        out: PathBuf,
    },
    /// Sign a certificate: NAME.pem and NAME.key.
    #[command(
        after_help = "Example: marchland certs node --cluster live --node 1 --roles shard,edge --worlds 1 --authority certs --out certs/node-1"
    )]
    Node {
        /// Name of the cluster.
        #[arg(long)]
        cluster: String,
        /// The node's number; 0 for an operator's tool.
        #[arg(long)]
        node: u32,
        /// Any of shard, edge, admin.
        #[arg(long, value_delimiter = ',')]
        roles: Vec<String>,
        /// Numbers of worlds, or `all`.
        #[arg(long, value_delimiter = ',')]
        worlds: Vec<String>,
        /// Folder with authority.pem and authority.key.
        #[arg(long)]
        authority: PathBuf,
        /// Path of the new files, without their endings.
        #[arg(long)]
        out: PathBuf,
    },
}

/// Runs `marchland certs`. Refuses to replace a file.
pub fn run(args: CertsArgs) -> anyhow::Result<()> {
    match args.what {
        What::Authority { cluster, out } => {
            std::fs::create_dir_all(&out).with_context(|| format!("can not make {}", out.display()))?;
            let made = make_authority(&cluster)?;
            put(&out.join("authority.key"), &made.key_pem, true)?;
            put(&out.join("authority.pem"), &made.certificate_pem, false)
        }
        What::Node { cluster, node, roles, worlds, authority, out } => {
            let read = |name: &str| {
                let path = authority.join(name);
                std::fs::read_to_string(&path).with_context(|| format!("can not read {}", path.display()))
            };
            let authority = Authority { certificate_pem: read("authority.pem")?, key_pem: read("authority.key")? };
            let roles = roles.iter().map(|r| r.parse::<Role>()).collect::<Result<BTreeSet<_>, _>>()?;
            if roles.is_empty() {
                bail!("--roles names no role");
            }
            let worlds = match worlds.iter().any(|w| w == "all") {
                true => None,
                false => Some(
                    worlds
                        .iter()
                        .map(|w| w.parse().map(WorldId).with_context(|| format!("{w:?} is no number of a world")))
                        .collect::<anyhow::Result<BTreeSet<_>>>()?,
                ),
            };
            let identity = PeerIdentity { cluster, node: NodeId(node), roles, worlds };
            // What is signed must be what every peer can read.
            identity.to_string().parse::<PeerIdentity>()?;
            let (certificate, key) = make_node_certificate(&authority, &identity)?;
            put(&out.with_extension("key"), &key, true)?;
            put(&out.with_extension("pem"), &certificate, false)?;
            println!("{identity}");
            Ok(())
        }
    }
}

fn put(path: &std::path::Path, text: &str, private: bool) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mode = if private { 0o600 } else { 0o644 };
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("can not make {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("can not write {}", path.display()))?;
    println!("made {}", path.display());
    Ok(())
}
