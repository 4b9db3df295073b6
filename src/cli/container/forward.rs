//! `flok port-forward`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use bollard::query_parameters::{InspectContainerOptions, InspectServiceOptions};
use clap::Args;
use tokio::net::{TcpListener, TcpStream};

use super::find;
use crate::api::client::{Client, ClientError};

/// How soon a service that was removed is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reach a task's TCP ports from this machine, through the swarm
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flok port-forward db 5432
  flok port-forward web.2 8080:80 8443:443
  flok port-forward --address 0.0.0.0 web 8080:80

Nothing has to be published. A service's name means one of its running tasks; each connection looks for one anew, so that a
task that is replaced does no harm. Ends with Ctrl-C, or with the service.")]
pub struct PortForward {
    /// Where to listen
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Task, container or service
    #[arg(value_name = "TASK")]
    name: String,
    /// Port here, port of the task; one for both; 0: a free one here
    #[arg(required = true, value_name = "[LOCAL:]PORT", value_parser = ports)]
    ports: Vec<(u16, u16)>,
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let (local, port) = text.split_once(':').unwrap_or((text, text));
    match (local.parse(), port.parse()) {
        (Ok(local), Ok(port)) if port > 0 => Ok((local, port)),
        _ => Err("write a port, or two as LOCAL:PORT".into()),
    }
}

impl PortForward {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        // What is not there is said now.
        let service = service_of(client, &find(client, &self.name).await?).await;
        let mut listening = Vec::new();
        for (local, port) in &self.ports {
            let addr = SocketAddr::new(self.address, *local);
            let listener = TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}"))?;
            println!("{} -> {} port {port}", listener.local_addr()?, self.name);
            listening.push((listener, *port));
        }
        let serving = listening.into_iter().map(|(listener, port)| {
            let (client, name) = (client.clone(), self.name.clone());
            async move {
                loop {
                    let Ok((stream, from)) = listener.accept().await else { continue };
                    let (client, name) = (client.clone(), name.clone());
                    tokio::spawn(async move {
                        if let Err(error) = forward(&client, &name, port, stream).await {
                            eprintln!("connection of {from}: {error}");
                        }
                    });
                }
            }
        });
        let serving = futures::future::join_all(serving);
        tokio::select! {
            _ = serving => {}
            _ = tokio::signal::ctrl_c() => {}
            () = removed(client, service) => bail!("the service of {} was removed", self.name),
        }
        Ok(())
    }
}

/// Its id, where the container says so.
async fn service_of(client: &Client, container: &str) -> Option<String> {
    let shown = client.docker().inspect_container(container, None::<InspectContainerOptions>).await.ok()?;
    shown.config?.labels?.remove("com.docker.swarm.service.id")
}

/// Ends when there is no such service any more; a node that cannot tell, as a worker, is no reason.
async fn removed(client: &Client, service: Option<String>) {
    let Some(service) = service else { return std::future::pending().await };
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let found = client.docker().inspect_service(&service, None::<InspectServiceOptions>).await;
        if found.is_err_and(|error| client.explain(error).is_not_found()) {
            return;
        }
    }
}

async fn forward(client: &Client, name: &str, port: u16, mut stream: TcpStream) -> Result<(), ClientError> {
    let container = find(client, name).await?;
    let mut task = client.upgrade(&format!("/forward/{container}?port={port}")).await?;
    // Whoever breaks off has said what there was to say.
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut task).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_two() {
        assert_eq!(ports("80"), Ok((80, 80)));
        assert_eq!(ports("0:80"), Ok((0, 80)));
        for wrong in ["", "a", "80:0", "1:2:3", "70000"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }
}
