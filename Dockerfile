# The inspection station, with PostgreSQL and all outputs to the line, as a user without rights.
#
#   docker build -t reconpatch .
#   docker run -p 127.0.0.1:8000:8000 -v station:/station -v ./part.rcp:/models/part.rcp:ro -v ./token:/token:ro reconpatch
#
# `token` is a file with the token that the service asks for: inside a container it listens beyond the machine.
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /reconpatch \
 && /reconpatch/bin/pip install --no-cache-dir --constraint constraints.txt '.[serve,postgresql,webhook,mqtt,modbus,opcua,camera,genicam]'

FROM python:3.11-slim
COPY --from=build /reconpatch /reconpatch
RUN useradd --system --create-home operator && install -d -o operator /station
USER operator
ENV PATH=/reconpatch/bin:$PATH
VOLUME /station
EXPOSE 8000
ENTRYPOINT ["reconpatch"]
CMD ["serve", "/models/part.rcp", "--data", "/station", "--host", "0.0.0.0", "--token-file", "/token"]
