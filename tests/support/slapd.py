"""Debian's LDAP server, on loopback, with the users that a test names."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import notes
from support.ports import own_port
from support.waiting import until

BASE = "dc=example,dc=org"
PEOPLE = f"ou=people,{BASE}"
_CONFIG = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
database mdb
suffix "{base}"
directory {folder}
maxsize 1048576
"""
_ENTRIES = """\
dn: {base}
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: {people}
objectClass: organizationalUnit
ou: people
"""
_USER = """\

dn: cn={name},{people}
objectClass: inetOrgPerson
cn: {name}
sn: {name}
userPassword: {password}
"""


@contextmanager
def directory(folder: Path, users: dict[str, str]) -> Iterator[str]:
    """Run it; the URL. `users` are names with passwords. Skips where it is not installed."""
    slapd, slapadd = (shutil.which(name, path="/usr/sbin:/sbin:/usr/bin") for name in ("slapd", "slapadd"))
    if slapd is None or slapadd is None:
        raise notes.skipped("slapd is not installed", "the login by LDAP")
    config = folder / "slapd.conf"
    config.write_text(_CONFIG.format(folder=folder, base=BASE))
    entries = _ENTRIES.format(base=BASE, people=PEOPLE)
    entries += "".join(_USER.format(name=name, password=text, people=PEOPLE) for name, text in users.items())
    subprocess.run([slapadd, "-f", str(config)], input=entries, text=True, check=True, capture_output=True)
    url = f"ldap://127.0.0.1:{own_port()}"
    process = subprocess.Popen(
        [slapd, "-h", url, "-f", str(config), "-d", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until((folder / "pid").exists)
        yield url
    finally:
        process.terminate()
        process.wait()
