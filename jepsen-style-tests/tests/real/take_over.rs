//! One character, several clients: of two that resume at once over two edges the one with the higher attach number stays, whoever signs in again
//! takes over, and each of the others is told so. All the same while the owner of the region is killed.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use frontier::{Say, action};
use marchland_edge::client::{ClientError, ClientOptions, Heard, Login, PlayerClient, ResumeKey};
use marchland_jepsen::cluster::{Cluster, REGION};
use marchland_proto::client::{Action, input::What};
use marchland_proto::codes::Code;
use marchland_proto::net::TokioTransport;
use prost::Message;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rules::{end, token};
use crate::scene::{Load, Outcome, Scene};

const PLAYERS: usize = 6;
/// Races of two that resume; in every fourth the owner is killed.
const RESUMES: u64 = 12;
/// Races of two that sign in.
const SIGN_INS: u64 = 6;
const NAME: &str = "contested";
/// A sign-in, an election, and the time that a session is tried for.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

type Client = PlayerClient<TcpStream>;

pub async fn run(scene: &Scene) -> anyhow::Result<Outcome> {
    let mut cluster = scene.cluster(&[])?;
    cluster.start_by_hand().await?;
    let mut load = Load::start(&cluster, PLAYERS, &scene.folder.join("history.jsonl"))?;
    load.until_acknowledged(2 * PLAYERS).await?;
    let mut own = sign_in(&cluster, 1).await??;
    let mut refused = 0;
    for round in 0..RESUMES {
        let owner = cluster.leader(REGION).await?;
        let kills = round % 4 == 3;
        let nodes: Vec<u32> = (1..=3).filter(|node| !kills || *node != owner).collect();
        if kills {
            load.fault("the owner is killed");
            cluster.kill_node(owner).await?;
        }
        let key = own.resume_key();
        let newer = ResumeKey { attach_number: key.attach_number + 1, ..key.clone() };
        let at = |offset: u64| nodes[((round + offset) % nodes.len() as u64) as usize];
        let (older, newer) = tokio::join!(resume(&cluster, at(0), key), resume(&cluster, at(1), newer));
        let mut winner = newer?.context("the newer one is refused")?;
        answered(&mut winner, round).await.context("the newer one is not served")?;
        match older? {
            Ok(loser) => superseded(loser).await?,
            Err(error) => {
                ensure!(error.code() == Some(Code::Superseded), "the older one is told {error}");
                refused += 1;
            }
        }
        // The node of the socket before may be gone.
        if !kills {
            superseded(own).await?;
        }
        own = winner;
        if kills {
            cluster.start_node(owner)?;
            cluster.node_ready(owner).await?;
            load.healed();
        }
    }
    for round in 0..SIGN_INS {
        let (epoch, key) = (own.welcome().session_epoch, own.resume_key());
        let at = |offset: u64| ((round + offset) % 3) as u32 + 1;
        let (one, other) = tokio::join!(sign_in(&cluster, at(0)), sign_in(&cluster, at(1)));
        superseded(own).await?;
        let mut here: Vec<Client> = Vec::new();
        for client in [one?, other?] {
            match client {
                Ok(client) => here.push(client),
                Err(error) => ensure!(error.code() == Some(Code::Superseded), "whoever signs in is told {error}"),
            }
        }
        here.sort_by_key(|client| client.welcome().session_epoch);
        let mut last = here.pop().context("nobody could sign in")?;
        ensure!(last.welcome().session_epoch > epoch, "epoch {} after {epoch}", last.welcome().session_epoch);
        for client in here {
            superseded(client).await?;
        }
        answered(&mut last, RESUMES + round).await.context("whoever signed in last is not served")?;
        match resume(&cluster, at(2), key).await? {
            Ok(_) => bail!("a session that was taken over can be resumed"),
            Err(error) => ensure!(error.code() == Some(Code::Superseded), "the one before is told {error}"),
        }
        own = last;
    }
    own.goodbye().await?;
    let verdict = end(&mut cluster, &mut load).await?;
    for node in 1..=3 {
        cluster.stop_node(node).await?;
    }
    Ok(Outcome::Shown(format!(
        "{RESUMES} races of two that resumed, {refused} refused at once and {} thrown out; {SIGN_INS} of two that signed in; {verdict}",
        RESUMES - refused
    )))
}

async fn sign_in(cluster: &Cluster, node: u32) -> anyhow::Result<Result<Client, ClientError>> {
    let http = &cluster.ready()?.nodes[node as usize - 1].http;
    let login = Login::SignIn { token: token(http, NAME).await?, character_name: NAME.to_owned() };
    connect(cluster, node, &login).await
}

async fn resume(cluster: &Cluster, node: u32, key: ResumeKey) -> anyhow::Result<Result<Client, ClientError>> {
    connect(cluster, node, &Login::Resume(key)).await
}

async fn connect(cluster: &Cluster, node: u32, login: &Login) -> anyhow::Result<Result<Client, ClientError>> {
    let address = cluster.ready()?.nodes[node as usize - 1].players();
    let options = ClientOptions::default();
    timeout(ANSWER_WITHIN, PlayerClient::connect(&TokioTransport, address, &options, login)).await.context("no answer")
}

/// Says something, and waits until that is answered.
async fn answered(client: &mut Client, number: u64) -> anyhow::Result<()> {
    let body = Say { text: format!("here, {number}") }.encode_to_vec();
    let seq = client.input(What::Action(Action { code: action::SAY, body: body.into() }), 0)?;
    client.flush().await?;
    let answer = async {
        loop {
            if let Heard::Frame(_) = client.next().await?
                && let Some(reply) = client.view.take_replies().into_iter().find(|reply| reply.command_seq == seq)
            {
                return anyhow::Ok(reply.code);
            }
        }
    };
    let code = timeout(ANSWER_WITHIN, answer).await.context("no answer")??;
    ensure!(code == Code::Ok as u32, "answered with code {code}");
    Ok(())
}

/// Its socket ends, and it is told that somebody else has the session.
async fn superseded(mut client: Client) -> anyhow::Result<()> {
    let ended = async {
        loop {
            if let Err(error) = client.next().await {
                return error;
            }
        }
    };
    let error = timeout(ANSWER_WITHIN, ended).await.context("two clients play the same character")?;
    ensure!(error.code() == Some(Code::Superseded), "whoever was replaced is told {error}");
    Ok(())
}
