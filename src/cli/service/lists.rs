//! The flags of the lists of a service's containers: plain ones for `service create`, pairs that add and remove for
//! `service update`, as Docker has them.

use std::net::IpAddr;

use clap::Args;

use super::container::{Edit, Lists, generic_resource, host, spread, ulimit};
use crate::cli::key_value;
use crate::spec::{Security, is_dns_domain};

/// The text itself, where `read` can read it: what it stands for is worked out with the service that it changes.
fn checked<T: 'static>(
    read: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static {
    move |text| read(text).map(|_| text.to_owned())
}

fn dns_server(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no IP address"))
}

fn dns_domain(text: &str) -> Result<(), String> {
    if is_dns_domain(text) { Ok(()) } else { Err(format!("{text:?} is no domain: give each its own flag")) }
}

fn security_option(text: &str) -> Result<Security, String> {
    let known = "no-new-privileges, seccomp=unconfined, apparmor=unconfined";
    Security::read(&[text.to_owned()]).map_err(|option| format!("{option:?} is none of {known}"))
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Container options")]
pub struct CreateLists {
    /// Right to give, for example NET_ADMIN; repeat it
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Right to take; repeat it
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Further group of the user; repeat it
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// DNS server to ask in place of the host's; repeat it
    #[arg(long, value_name = "ADDRESS", value_parser = checked(dns_server))]
    dns: Vec<String>,
    /// DNS option; repeat it
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// DNS search domain; repeat it
    #[arg(long, value_name = "DOMAIN", value_parser = checked(dns_domain))]
    dns_search: Vec<String>,
    /// Name with a fixed address; repeat it (`--host` names the daemon to ask)
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = checked(host))]
    add_host: Vec<String>,
    /// Kernel setting; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = checked(key_value))]
    sysctl: Vec<String>,
    /// Limit, for example nofile=1024:2048; repeat it
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = checked(ulimit))]
    ulimit: Vec<String>,
    /// Resource that the node must have free, for example gpu=2, or gpu=all; repeat it
    #[arg(long, value_name = "KIND=COUNT", value_parser = checked(generic_resource))]
    generic_resource: Vec<String>,
    /// Spread tasks evenly over the values of a label, for example spread=node.labels.zone; repeat it
    #[arg(long, value_name = "spread=LABEL", value_parser = checked(spread))]
    placement_pref: Vec<String>,
    /// Device of the host; repeat it
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    device: Vec<String>,
    /// Security option: no-new-privileges, seccomp=unconfined; repeat it
    #[arg(long, value_name = "OPTION", value_parser = checked(security_option))]
    security_opt: Vec<String>,
}

impl CreateLists {
    pub fn lists(self) -> Lists {
        Lists {
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            group: Edit::adding(self.group),
            dns: Edit::adding(self.dns),
            dns_option: Edit::adding(self.dns_option),
            dns_search: Edit::adding(self.dns_search),
            host: Edit::adding(self.add_host),
            sysctl: Edit::adding(self.sysctl),
            ulimit: Edit::adding(self.ulimit),
            generic_resource: Edit::adding(self.generic_resource),
            placement_pref: Edit::adding(self.placement_pref),
            container_label: Edit::default(),
            device: Edit::adding(self.device),
            security_opt: Edit::adding(self.security_opt),
        }
    }
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Container options")]
pub struct UpdateLists {
    /// Right to give, for example NET_ADMIN; repeat it
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Right to take; repeat it
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Add a further group of the user; repeat it
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Remove one; repeat it
    #[arg(long, value_name = "GROUP")]
    group_rm: Vec<String>,
    /// Add a DNS server; repeat it
    #[arg(long, value_name = "ADDRESS", value_parser = checked(dns_server))]
    dns_add: Vec<String>,
    /// Remove one; repeat it
    #[arg(long, value_name = "ADDRESS")]
    dns_rm: Vec<String>,
    /// Add a DNS option; repeat it
    #[arg(long, value_name = "OPTION")]
    dns_option_add: Vec<String>,
    /// Remove one; repeat it
    #[arg(long, value_name = "OPTION")]
    dns_option_rm: Vec<String>,
    /// Add a DNS search domain; repeat it
    #[arg(long, value_name = "DOMAIN", value_parser = checked(dns_domain))]
    dns_search_add: Vec<String>,
    /// Remove one; repeat it
    #[arg(long, value_name = "DOMAIN")]
    dns_search_rm: Vec<String>,
    /// Add a name with a fixed address; repeat it
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = checked(host))]
    host_add: Vec<String>,
    /// Remove one; repeat it
    #[arg(long, value_name = "NAME[:ADDRESS]")]
    host_rm: Vec<String>,
    /// Add or change a kernel setting; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = checked(key_value))]
    sysctl_add: Vec<String>,
    /// Remove one; repeat it
    #[arg(long, value_name = "KEY")]
    sysctl_rm: Vec<String>,
    /// Add or change a limit; repeat it
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = checked(ulimit))]
    ulimit_add: Vec<String>,
    /// Remove one; repeat it
    #[arg(long, value_name = "NAME")]
    ulimit_rm: Vec<String>,
    /// Add or change a resource that the node must have free; repeat it
    #[arg(long, value_name = "KIND=COUNT", value_parser = checked(generic_resource))]
    generic_resource_add: Vec<String>,
    /// Remove one; repeat it
    #[arg(long, value_name = "KIND")]
    generic_resource_rm: Vec<String>,
    /// Add a preference to spread over the values of a label; repeat it
    #[arg(long, value_name = "spread=LABEL", value_parser = checked(spread))]
    placement_pref_add: Vec<String>,
    /// Remove one; repeat it
    #[arg(long, value_name = "spread=LABEL", value_parser = checked(spread))]
    placement_pref_rm: Vec<String>,
    /// Add or change a label of the containers; repeat it
    #[arg(long, value_name = "KEY=VALUE", value_parser = checked(key_value))]
    container_label_add: Vec<String>,
    /// Remove one; repeat it
    #[arg(long, value_name = "KEY")]
    container_label_rm: Vec<String>,
    /// Add a device of the host; repeat it
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    device_add: Vec<String>,
    /// Remove one; repeat it
    #[arg(long, value_name = "HOST")]
    device_rm: Vec<String>,
    /// Add a security option; repeat it
    #[arg(long, value_name = "OPTION", value_parser = checked(security_option))]
    security_opt_add: Vec<String>,
    /// Remove one; repeat it
    #[arg(long, value_name = "OPTION")]
    security_opt_rm: Vec<String>,
}

impl UpdateLists {
    pub fn lists(self) -> Lists {
        let edit = |add, remove| Edit { add, remove };
        Lists {
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            group: edit(self.group_add, self.group_rm),
            dns: edit(self.dns_add, self.dns_rm),
            dns_option: edit(self.dns_option_add, self.dns_option_rm),
            dns_search: edit(self.dns_search_add, self.dns_search_rm),
            host: edit(self.host_add, self.host_rm),
            sysctl: edit(self.sysctl_add, self.sysctl_rm),
            ulimit: edit(self.ulimit_add, self.ulimit_rm),
            generic_resource: edit(self.generic_resource_add, self.generic_resource_rm),
            placement_pref: edit(self.placement_pref_add, self.placement_pref_rm),
            container_label: edit(self.container_label_add, self.container_label_rm),
            device: edit(self.device_add, self.device_rm),
            security_opt: edit(self.security_opt_add, self.security_opt_rm),
        }
    }
}
