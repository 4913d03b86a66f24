"""worker.collectors.sensors"""

from pathlib import Path

import pytest

from fleetpulse.worker.collectors.sensors import SensorCollector, SensorReading, read_sensors
from tests.worker.collectors import recorded_machines


def hwmon(sys: Path, number: int, name: str, **files: object) -> None:
    folder = sys / "class" / "hwmon" / f"hwmon{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    for file, value in files.items():
        (folder / file).write_text(f"{value}\n")


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("raspberry", [("cpu_thermal/temp1", 48.199, None)]),
        ("gpu8", [("k10temp/Tctl", 61.125, None), ("nvme/Composite", 41.85, None)]),
        # The fan that says 65535 is not connected; the cores are no warmer than their package.
        (
            "laptop",
            [("coretemp/Package id 0", 57.0, None), ("thinkpad/fan1", None, 2913), ("thinkpad/temp1", 57.0, None)],
        ),
        ("azure", []),
    ],
)
def test_sensors_of_recorded_machines(
    machine: str, expected: list[tuple[str, float | None, int | None]], tmp_path: Path
) -> None:
    sys = recorded_machines.build(machine, tmp_path).sys
    assert read_sensors(sys / "class" / "hwmon") == [SensorReading(*reading) for reading in expected]


def test_values_that_are_none_are_absent(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, "odd", temp1_input=-128000, temp2_input=255000, temp3_input="", temp4_input="EIO")
    hwmon(tmp_path, 1, "faulty", temp1_input=20000, temp1_fault=1, temp2_input=21000, temp2_fault=0, fan1_input=0)
    names = [reading.name for reading in read_sensors(tmp_path / "class" / "hwmon")]
    assert names == ["faulty/fan1", "faulty/temp2"]


def test_equal_chips_and_labels_have_names_of_their_own(tmp_path: Path) -> None:
    hwmon(tmp_path, 2, "nvme", temp1_input=30000, temp1_label="Composite", temp2_input=31000, temp2_label="Composite")
    hwmon(tmp_path, 10, "nvme", temp1_input=40000, temp1_label="Composite")
    names = [reading.name for reading in read_sensors(tmp_path / "class" / "hwmon")]
    assert names == ["nvme#1/Composite", "nvme#1/Composite (temp2)", "nvme#2/Composite"]


def test_cores_are_reported_where_there_is_no_package(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, "coretemp", temp1_input=30000, temp1_label="Core 0")
    assert [reading.name for reading in read_sensors(tmp_path / "class" / "hwmon")] == ["coretemp/Core 0"]


def test_what_sleeps_is_not_woken(tmp_path: Path) -> None:
    hwmon(tmp_path, 0, "drivetemp", temp1_input=30000)
    hwmon(tmp_path, 1, "amdgpu", temp1_input=30000)
    power = tmp_path / "class" / "hwmon" / "hwmon1" / "device" / "power"
    power.mkdir(parents=True)
    (power / "runtime_status").write_text("suspended\n")
    assert read_sensors(tmp_path / "class" / "hwmon") == []
    (power / "runtime_status").write_text("active\n")
    assert [reading.name for reading in read_sensors(tmp_path / "class" / "hwmon")] == ["amdgpu/temp1"]


def test_sensors_are_read_every_ten_seconds_and_the_hottest_are_kept(tmp_path: Path) -> None:
    now = [0.0]
    hwmon(tmp_path, 0, "board", **{f"temp{number}_input": number * 1000 for number in range(1, 71)}, fan1_input=900)
    collector = SensorCollector(tmp_path, clock=lambda: now[0])
    heartbeat = collector.collect()
    assert len(heartbeat.sensors) == 64
    assert {"board/fan1", "board/temp70"} <= {sensor.sensor for sensor in heartbeat.sensors}
    assert "board/temp1" not in {sensor.sensor for sensor in heartbeat.sensors}
    assert [(part.collector, part.count) for part in heartbeat.left_out] == [("sensors", 7)]
    (tmp_path / "class/hwmon/hwmon0/fan1_input").write_text("1000\n")
    now[0] = 9.0
    assert collector.collect() == heartbeat
    now[0] = 10.0
    assert [sensor.fan_rpm for sensor in collector.collect().sensors if sensor.HasField("fan_rpm")] == [1000.0]
