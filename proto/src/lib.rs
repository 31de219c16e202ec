//! The schema, the types generated from it, and the byte streams that carry it.
//!
//! - [`client`], [`storage`], [`cluster`]: generated from `schema/*.proto` at build time by a compiler written in Rust.
//! - [`records`]: the packed little-endian records inside the envelopes.
//! - [`codes`]: stable refusal codes, each with its remedy.
//! - [`net`]: the [`net::Transport`] seam, cluster identities, and tonic channels and servers over both.

mod generated {
    #![allow(missing_docs, clippy::all, rustdoc::all)]
    pub mod client {
        pub mod v1 {
            tonic::include_proto!("marchland.client.v1");
        }
    }
    pub mod storage {
        pub mod v1 {
            tonic::include_proto!("marchland.storage.v1");
        }
    }
    pub mod cluster {
        pub mod v1 {
            tonic::include_proto!("marchland.cluster.v1");
        }
    }
}

pub use generated::client::v1 as client;
pub use generated::cluster::v1 as cluster;
pub use generated::storage::v1 as storage;

pub mod codes;
pub mod net;
pub mod records;
