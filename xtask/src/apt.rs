// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian packages: installs those that the machine lacks, and fetches those that its own suites do not have.
//!
//! Packages of other suites come through a private apt configuration in the cache. It uses the mirror that the machine
//! itself uses and the archive's own keyring; the machine's list of sources is read, never written.

use crate::ctx::{lock, Ctx};
use crate::process::{command, is_on_path, output};
use crate::step::Step;
use anyhow::{bail, ensure, Context, Result};
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

/// Keyring of package `debian-archive-keyring`, part of every Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// How packages are installed; a machine that just booted may be upgrading itself.
const INSTALL: [&str; 5] = ["install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"];

/// A private apt configuration: suites, lists and nothing of the machine's sources.
pub(crate) struct PrivateApt {
    dir: PathBuf,
    architecture: Option<&'static str>,
    /// Held for as long as the lists and downloads are in use.
    _lock: File,
}

impl PrivateApt {
    /// Writes the configuration `name` for `suites`, and fetches their package lists.
    ///
    /// # Errors
    ///
    /// If the machine names no mirror, or no list can be had. A suite that does not exist (any more) is no error.
    pub(crate) fn fetch(ctx: &Ctx, name: &str, suites: &[&str], architecture: Option<&'static str>) -> Result<Self> {
        let dir = ctx.cache.join("apt").join(name);
        for sub in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(dir.join(sub))?;
        }
        let apt = Self { _lock: lock(&dir)?, dir, architecture };
        let mirror = machine_mirror()?;
        let arch = architecture.map(|arch| format!("arch={arch} ")).unwrap_or_default();
        let sources: String =
            suites.iter().map(|suite| format!("deb [{arch}signed-by={KEYRING}] {mirror} {suite} main\n")).collect();
        std::fs::write(apt.dir.join("sources.list"), sources)?;
        // Where several suites are asked for, the newest is wanted; backports would otherwise be the last choice.
        let pins = suites.iter().map(|suite| format!("Package: *\nPin: release n={suite}\nPin-Priority: 500\n\n"));
        std::fs::write(apt.dir.join("preferences"), pins.collect::<String>())?;
        let step = Step::start(format!("apt: package lists of {}", suites.join(", ")));
        // A suite that is gone makes `update` fail, but the lists of the others are fetched. A package that is missing
        // then is noticed when it is downloaded.
        if let Err(error) = step.run(apt.command("apt-get").arg("update"), &ctx.log(&format!("apt-update-{name}"))) {
            eprintln!("    note: {error:#}");
        }
        step.done();
        Ok(apt)
    }

    /// Returns an apt tool under this configuration.
    pub(crate) fn command(&self, tool: &str) -> Command {
        let mut command = command(tool);
        command.args(self.options()).current_dir(&self.dir);
        command
    }

    /// Returns the options that keep the machine's sources out.
    fn options(&self) -> Vec<String> {
        let dir = self.dir.display();
        let mut options = vec![
            format!("Dir::Etc::SourceList={dir}/sources.list"),
            format!("Dir::Etc::Preferences={dir}/preferences"),
            "Dir::Etc::PreferencesParts=/dev/null".into(),
            "Dir::Etc::SourceParts=/dev/null".into(),
            format!("Dir::State::Lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            "APT::Sandbox::User=root".into(), // user _apt cannot read a home directory
            "Acquire::Languages=none".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
        ];
        options.extend(self.architecture.map(|arch| format!("APT::Architectures::={arch}")));
        options.into_iter().flat_map(|option| ["-o".into(), option]).collect()
    }

    /// Returns `packages` and all that they depend on, by the lists.
    ///
    /// # Errors
    ///
    /// If no suite has one of them.
    pub(crate) fn with_dependencies(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut depends = self.command("apt-cache");
        let told = output(depends.args(["depends", "--recurse", "--important"]).args(packages))?;
        let found: Vec<String> = told.lines().filter(|line| is_package(line)).map(str::to_owned).collect();
        for package in packages {
            // It leaves out what it does not know, and the architecture where that is the machine's own.
            let name = |spec: &str| spec.split(':').next().unwrap_or_default().to_owned();
            ensure!(found.iter().any(|one| name(one) == name(package)), "the package lists do not show {package}");
        }
        Ok(found)
    }

    /// Downloads packages and unpacks them; returns the directory.
    ///
    /// # Errors
    ///
    /// If no suite has one of them, or the download fails.
    pub(crate) fn download(&self, ctx: &Ctx, packages: &[&str]) -> Result<PathBuf> {
        let dir = self.dir.join("download");
        // An interrupted run may have left it.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        let step = Step::start(format!("apt: download {}", packages.join(" ")));
        let log = ctx.log("apt-download");
        step.run(self.command("apt-get").arg("download").args(packages).current_dir(&dir), &log)?;
        let root = dir.join("root");
        for deb in std::fs::read_dir(&dir)? {
            let deb = deb?.path();
            step.run(command("dpkg-deb").arg("-x").arg(&deb).arg(&root), &log)?;
            std::fs::remove_file(deb)?;
        }
        step.done();
        Ok(root)
    }
}

/// Returns whether a line of `apt-cache depends` names a package: not what another one says of it, nor a virtual one.
fn is_package(line: &str) -> bool {
    !line.starts_with([' ', '|', '<'])
}

/// Installs what is missing of `packages`, from the machine's own sources.
///
/// # Errors
///
/// If apt fails, or neither root nor sudo is at hand.
pub(crate) fn install(ctx: &Ctx, packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let step = Step::start(format!("apt: install {}", missing.join(" ")));
    // A broken third-party source makes `update` fail. Whether that matters shows when the packages are installed.
    if let Err(error) = step.run(as_root("apt-get")?.arg("update"), &ctx.log("apt-update")) {
        eprintln!("    note: {error:#}");
    }
    let mut install = as_root("apt-get")?;
    step.run(install.args(INSTALL).args(missing), &ctx.log("apt-install"))?;
    step.done();
    Ok(())
}

/// Installs one package from the machine's backports suite, by way of a private configuration.
///
/// # Errors
///
/// If apt fails, or neither root nor sudo is at hand.
pub(crate) fn install_from_backports(ctx: &Ctx, package: &str) -> Result<()> {
    let codename = machine_codename()?;
    let backports = format!("{codename}-backports");
    let apt = PrivateApt::fetch(ctx, "backports", &[&codename, &backports], None)?;
    let step = Step::start(format!("apt: install {package} from {backports}"));
    let mut install = as_root("apt-get")?;
    install.args(apt.options()).args(INSTALL).args(["-t", &backports, package]);
    step.run(&mut install, &ctx.log("apt-install-backports"))?;
    step.done();
    Ok(())
}

/// Returns those of `packages` that dpkg does not have.
fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut query = command("dpkg-query");
    query.args(["-W", "-f", "${Package} ${db:Status-Status}\n"]).args(packages);
    // It exits non-zero if it does not know one of them, but still prints the others.
    let known = query.output().context("cannot run dpkg-query: set-up knows Debian only")?.stdout;
    let known = String::from_utf8_lossy(&known);
    let is_installed = |package: &str| known.lines().any(|line| line.strip_prefix(package) == Some(" installed"));
    Ok(packages.iter().copied().filter(|package| !is_installed(package)).collect())
}

/// Returns a command to be run as root: directly, or by sudo.
fn as_root(program: &str) -> Result<Command> {
    let is_root = output(command("id").arg("-u"))?.trim() == "0";
    let mut command = match (is_root, is_on_path("sudo")) {
        (true, _) => command(program),
        (false, true) => {
            let mut sudo = command("sudo");
            // sudo may have to ask for a password, and it does not pass the environment on.
            sudo.stdin(std::process::Stdio::inherit()).args(["env", "DEBIAN_FRONTEND=noninteractive", program]);
            sudo
        }
        (false, false) => bail!("`{program}` must run as root: run this as root, or install sudo"),
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

/// Returns the code name of the machine's Debian release.
///
/// # Errors
///
/// If the machine does not run Debian. Its user has to set it up by hand.
pub(crate) fn machine_codename() -> Result<String> {
    let release = std::fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    codename(&release)
        .context("set-up knows Debian only (12 or later); elsewhere install what xtask/src/setup.rs lists")
}

/// Returns the code name that an `os-release` file of Debian tells.
fn codename(os_release: &str) -> Option<String> {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME")).flatten()
}

/// Returns the mirror that the machine's own sources name for its release.
fn machine_mirror() -> Result<String> {
    let format = ["indextargets", "--no-release-info", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"];
    let targets = output(command("apt-get").args(format))?;
    mirror(&targets, &machine_codename()?).context("apt names no Debian mirror: check /etc/apt/sources.list")
}

/// Picks the mirror from lines of "site release". It takes the one of the release itself, because the security archive
/// has no other suites.
fn mirror(targets: &str, codename: &str) -> Option<String> {
    let all: Vec<(&str, &str)> = targets.lines().filter_map(|line| line.trim().split_once(' ')).collect();
    let is_other = |release: &str| release.contains("security") || release.contains('/');
    let by_name = all.iter().find(|(_, release)| *release == codename);
    let (site, _) = by_name.or_else(|| all.iter().find(|(_, release)| !is_other(release)))?;
    Some((*site).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codename_is_told_by_debian_only() {
        let debian = "PRETTY_NAME=\"Debian\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(codename(debian).as_deref(), Some("bookworm"));
        assert_eq!(codename("ID=ubuntu\nVERSION_CODENAME=noble\nID_LIKE=debian\n"), None);
        assert_eq!(codename("ID=debian\n"), None, "unstable has no code name");
    }

    #[test]
    fn packages_stand_at_the_start_of_a_line() {
        let told = "ssh:arm64\n  Depends: libc6:arm64\n |Depends: awk:arm64\n  Depends: <shell:arm64>\n    gawk:arm64\n<shell:arm64>\nlibc6:arm64";
        let packages: Vec<&str> = told.lines().filter(|line| is_package(line)).collect();
        assert_eq!(packages, ["ssh:arm64", "libc6:arm64"]);
    }

    #[test]
    fn mirror_is_that_of_the_release() {
        let targets =
            "http://a.test/sec bookworm-security\nhttp://a.test/d bookworm-updates\nhttp://b.test/d bookworm\n";
        assert_eq!(mirror(targets, "bookworm").as_deref(), Some("http://b.test/d"));
    }

    #[test]
    fn mirror_of_a_suite_name_is_not_the_security_archive() {
        let targets = "http://a.test/sec stable-security\nhttp://b.test/d stable\n";
        assert_eq!(mirror(targets, "bookworm").as_deref(), Some("http://b.test/d"));
        assert_eq!(mirror("", "bookworm"), None);
    }
}
