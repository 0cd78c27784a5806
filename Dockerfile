# Airflow with exactly the packages of requirements.txt. The tag and the lock name the same Airflow version; a test
# compares them.
FROM apache/airflow:3.3.2-python3.12
COPY requirements.txt /requirements.txt
RUN uv pip install --no-cache -r /requirements.txt
ENV PYTHONPATH=/opt/airflow
COPY --chown=airflow:0 dags /opt/airflow/dags
COPY --chown=airflow:0 plugins /opt/airflow/plugins
COPY --chown=airflow:0 include /opt/airflow/include
COPY --chown=airflow:0 sql /opt/airflow/sql
