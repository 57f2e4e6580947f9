"""The description of a data set in a recipe: its files, its columns, and the columns that state each scheme."""

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Strict(BaseModel):
    """A frozen model that refuses unknown keys, infinities and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Column(Strict):
    """The column of labels or ratings that states a scheme, or its columns of votes, one for each label.

    Labels are names or synonyms, or words of the table's own that `codes` maps to labels. Ratings are on the scale `range`, by
    default the scheme's own. Votes, counts or probabilities make a label distribution. With `from`, the values are of another
    scheme and a published crosswalk converts them to this one. `from` without other keys takes the columns that the data set
    states for that scheme.
    """

    column: str | None = None  # default: the one with the scheme's name, otherwise `class`, as in class folders
    from_: str | None = Field(default=None, alias="from")
    distribution: dict[str, str] = {}  # each label's column of votes or shares
    codes: dict[str, str] = {}  # the label for each word of the table
    range: tuple[float, float] | None = None
    cuts: tuple[float, ...] = ()  # thresholds that make classes of a number: below the first is the first label
    leave_out: tuple[str, ...] = ()  # values without a label of this scheme

    model_config = ConfigDict(serialize_by_alias=True)

    @model_validator(mode="after")
    def _check(self) -> "Column":
        if self.distribution and (self.column or self.codes or self.range or self.cuts or self.leave_out):
            raise ValueError("a distribution names a column for each label: remove column, codes, range, cuts and leave_out")
        if self.cuts and (self.range or self.codes):
            raise ValueError("cuts apply to the column's own numbers: remove range and codes")
        if list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError("the cuts must be in ascending order, each once")
        return self


class Derived(Strict):
    """A column derived from another: the text that the group of a regular expression matches in it."""

    column: str
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _check(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"a pattern needs one group, which captures the value; this one has {groups}")
        return pattern


class Format(Strict):
    """The format of a data set's files: a table of labels, Parquet, an .npz, or folders named by class."""

    labels: str | dict[str, str] = "labels.csv"  # the table of labels, or one for each split
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    quote: str = Field(default='"', min_length=1, max_length=1)
    header: bool = True  # true if the table's first line names its columns
    columns: tuple[str, ...] = ()  # column names that replace the header's, or stand in for a missing header
    optional: tuple[str, ...] = ()  # those of `columns` that some copies of the table lack, all together
    images: str = "images"  # the folder with the images of a table; the folder above `folders`, if stated
    file: str = "image"  # the column with the image, or a pattern of columns for its file name: "{ID}.jpg"
    folders: tuple[str, ...] = ()  # columns for the names of the folders above an image, outermost first: ["split", "class"]
    derived: dict[str, Derived] = {}
    group: str | None = None  # the column of groups: images of one group stay on one side of a split
    splits: tuple[str, ...] = ()  # the values of the column `split` to read; default: all
    schemes: dict[str, Column] = {}

    @model_validator(mode="after")
    def _check_format(self) -> "Format":
        if not self.header and not self.columns:
            raise ValueError("a table without a header needs `columns`, the names of its columns")
        if unknown := set(self.optional) - set(self.columns):
            raise ValueError(f"`optional` names {', '.join(sorted(unknown))}, which `columns` does not")
        for name, column in self.schemes.items():
            if column.from_ in self.schemes and self.schemes[column.from_].from_:
                raise ValueError(f"{name} is from {column.from_}, which is itself from {self.schemes[column.from_].from_}: use that one")
        return self

    def column(self, scheme: str) -> Column:
        """Return the column of a scheme, with `from` resolved if it refers to another scheme of this data set."""
        column = self.schemes[scheme]
        if column.from_ in self.schemes and not column.model_fields_set - {"from_"}:
            return self.schemes[column.from_].model_copy(update={"from_": column.from_})
        return column


class DataSet(Format):
    """A data set below the data folder. `layout` names a public one, whose format is bundled (docs/datasets.md)."""

    path: str
    layout: str | None = None
    repeat: int = Field(default=1, ge=1)  # how often an epoch uses an image
    balance: str | None = None  # a categorical scheme: images of its rarer labels are repeated until all are about equally frequent

    @model_validator(mode="after")
    def _check_schemes(self) -> "DataSet":
        if not self.schemes and self.layout is None:
            raise ValueError("a data set needs `schemes`, those it has labels for, or a `layout` that states them")
        return self
