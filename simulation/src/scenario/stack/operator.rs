//! An operator, who verifies the world at any moment, by the code and over the wire of `marchland verify`.
//!
//! No answer is no violation: nodes are down, regions have no owner. An answer that something is wrong is one.

use std::rc::Rc;
use std::time::Duration;

use marchland_admin::client::AdminEndpoint;
use marchland_admin::verify::verify;
use marchland_proto::net::Role;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use tokio::time::sleep;

use super::SHARDS;
use super::node::{ADMIN_TOKEN, OPERATOR, Stage, security};
use crate::oracle::{self, Violation};
use crate::trace_line;
use crate::world::Boot;

/// Longest pause between two looks.
const PAUSE_MAX_MS: u64 = 3_000;
/// Given up after this long.
const VERIFY_WITHIN: Duration = Duration::from_secs(3);
/// Time for the driver to see that the operator is at work.
const NOTICE: Duration = Duration::from_millis(20);

/// Verifies until the run ends.
pub(super) async fn verify_now_and_then(boot: Boot, stage: Rc<Stage>, mut random: Pcg64Mcg) -> anyhow::Result<()> {
    let endpoint = AdminEndpoint {
        addresses: (1..=SHARDS).map(|n| format!("n{n}:7100")).collect(),
        security: security(OPERATOR, Role::Admin),
        token: ADMIN_TOKEN.to_owned(),
    };
    let cluster = endpoint.connect(&boot.transport)?;
    loop {
        stage.verifying.set(false);
        sleep(NOTICE + Duration::from_millis(random.random_range(0..PAUSE_MAX_MS))).await;
        if stage.operator_rests.get() {
            continue;
        }
        stage.verifying.set(true);
        match verify(&cluster, VERIFY_WITHIN).await {
            Ok(report) => {
                trace_line!("verified: {} replicas, {} items, sound {}", report.replicas, report.items, report.sound());
                stage.verified.set(stage.verified.get() + 1);
                if !report.sound() {
                    oracle::report(Violation::new("verify-sound", format!("{report:?}")));
                }
            }
            Err(error) => {
                trace_line!("not verified: {error}");
                stage.unverified.set(stage.unverified.get() + 1);
            }
        }
    }
}
