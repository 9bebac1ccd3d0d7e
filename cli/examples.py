"""An example of each command, which its help ends with."""

import click

EXAMPLES = {
    "audit": "myhealth audit --subject savita --since 2026-11-01 --json",
    "completion": "myhealth completion bash > ~/.local/share/bash-completion/completions/myhealth",
    "db start": "myhealth db start",
    "db status": "myhealth db status --json",
    "db stop": "myhealth db stop",
    "demo": "myhealth demo",
    "doctor": "myhealth doctor --json",
    "import-machine": "myhealth import-machine dump.json --rejected rejected.json",
    "listen": "myhealth listen --host 0.0.0.0 --allow 10.1.0.0/16 --tls-cert cert.pem --tls-key key.pem",
    "machines list": "myhealth machines list --json",
    "machines register": "myhealth machines register HC-2031-0007 --model 'HealthCheckup 2' --site 'Room 4'",
    "migrate": "myhealth migrate --check || myhealth migrate",
    "rejections discard": "myhealth rejections discard 17 --reason 'a test'",
    "rejections list": "myhealth rejections list --limit 20",
    "rejections retry": "myhealth rejections retry 17 18",
    "rejections show": "myhealth rejections show 17 --json",
    "reports history": "myhealth reports history 12",
    "reports list": "myhealth reports list savita --csv",
    "reports show": "myhealth reports show savita 12",
    "reports trend": "myhealth reports trend savita --code 8480-6",
    "serve": "myhealth serve --upload-port 5000 --browse-port 5001",
    "settings": "myhealth settings --example > myhealth.toml",
    "status": "myhealth status --max-lag 600 --max-age 900",
    "sync": "myhealth sync --once -v",
    "users create": "myhealth users create savita --full-name 'Savita Rao' --birth-date 1961-04-02 --generate",
    "users delete": "myhealth users delete savita",
    "users disable": "myhealth users disable savita",
    "users enable": "myhealth users enable savita",
    "users export": "myhealth users export savita --output savita.zip",
    "users identifiers add": "myhealth users identifiers add savita urn:oid:2.16.840.1.113883.19.5 MRN-4711",
    "users identifiers list": "myhealth users identifiers list savita",
    "users identifiers remove": "myhealth users identifiers remove savita urn:oid:2.16.840.1.113883.19.5 MRN-4711",
    "users import": "myhealth users import patients.csv --skip-existing",
    "users invite": "myhealth users invite --all-without-password --html > slips.html",
    "users link": "myhealth users link savita",
    "users list": "myhealth users list --role doctor",
    "users set-name": "myhealth users set-name savita 'Savita Rao'",
    "users set-password": "myhealth users set-password savita --generate",
    "users set-person": "myhealth users set-person savita --birth-date 1961-04-02 --sex female",
    "users set-role": "myhealth users set-role dr.ayush doctor",
    "users show": "myhealth users show savita --json",
    "users unblock": "myhealth users unblock savita --address 192.0.2.7",
    "verify": "myhealth verify --repair",
}


def add_examples(command: click.Command, name: str) -> None:
    """Let the help of a command, and of those within, end with its example."""
    if isinstance(command, click.Group):
        for word, each in command.commands.items():
            add_examples(each, f"{name} {word}")
    elif name in EXAMPLES:
        command.epilog = f"\b\nExample:\n  {EXAMPLES[name]}"
