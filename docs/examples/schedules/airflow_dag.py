"""A DAG for Airflow 3 that submits each night's run to a running Ray cluster, and then removes what dead runs left.

Airflow's workers need `ray[default]` of the cluster's version, this repository in UGRIE_HOME, and in their environment
RAY_API_SERVER_ADDRESS (http://head:8265), RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH. A retry, or a cleared DAG run, has the run id of
the first attempt, so it resumes that run. Two attempts at once do no harm: one of them commits.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

OUTPUT = "s3://BUCKET/emotions"
ANNOTATE = f"python jobs/annotate.py --input s3://BUCKET/images/ --output {OUTPUT} --cpus 90 --gpus 5"

with DAG(
    "ugrie",
    schedule="0 1 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,  # a run annotates whatever is new: one makes up for all missed nights
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=10), "cwd": "{{ var.value.get('ugrie_home', '/opt/ugrie') }}"},
) as dag:
    annotate = BashOperator(
        task_id="annotate",
        bash_command=f"ray job submit --working-dir . -- {ANNOTATE} --run-id night-{{{{ ts_nodash }}}}",
        execution_timeout=timedelta(hours=20),
        append_env=True,
    )
    clean = BashOperator(task_id="clean", bash_command=f"python jobs/clean.py --output {OUTPUT}", append_env=True)
    annotate >> clean
