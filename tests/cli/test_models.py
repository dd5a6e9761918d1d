"""`tenfold models`."""


def test_all_networks_are_listed_with_their_cost(tenfold):
    done = tenfold("models")
    assert done.code == 0, done.err
    for words in ("mobilenet_v2", "301 M", "3.50 M", "3x224x224", "resnet20_cifar"):
        assert words in done.out
    assert "timm" in done.words


def test_a_pattern_or_a_part_of_a_name_selects(tenfold):
    names = [one["name"] for one in tenfold("models", "mobilenet*", "--json").json["models"]]
    assert names[:2] == ["mobilenet_v1", "mobilenet_v2"]
    assert [one["name"] for one in tenfold("models", "cifar", "--json").json["models"]]


def test_libraries_are_searched_by_their_prefix(tenfold):
    done = tenfold("models", "timm:resnet1*", "--json")
    assert "timm:resnet18" in [one["name"] for one in done.json["models"]]


def test_no_match_suggests_the_nearest(tenfold):
    done = tenfold("models", "mobilnet_v2")
    assert done.code == 2
    assert "Did you mean mobilenet_v2" in done.words
