"""Hand-written facts behind the corpus: US states, countries, antonyms in three languages, agreement, words for induction.

One line per place. Names of several words ("New York", "Salt Lake City") are single tokens in the demo's
tokenizer. No city name occurs twice, so every city has exactly one container.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A state or a country with its cities and the attributes that questions ask for."""

    name: str
    cities: tuple[str, ...]
    attributes: dict[str, str]


# name | abbreviation | region | capital | other cities
STATES_TABLE = """
Alabama|AL|South|Montgomery|Birmingham,Mobile,Huntsville,Tuscaloosa
Alaska|AK|West|Juneau|Anchorage,Fairbanks,Sitka,Ketchikan
Arizona|AZ|West|Phoenix|Tucson,Mesa,Tempe,Flagstaff,Yuma
Arkansas|AR|South|Little Rock|Fort Smith,Jonesboro,Pine Bluff,Texarkana
California|CA|West|Sacramento|Oakland,Fresno,Anaheim,Bakersfield,Los Angeles
Colorado|CO|West|Denver|Boulder,Greeley,Pueblo,Durango
Connecticut|CT|Northeast|Hartford|Bridgeport,Stamford,Waterbury,New Haven
Delaware|DE|South|Dover|Wilmington,Milford,Smyrna,Seaford
Florida|FL|South|Tallahassee|Miami,Tampa,Orlando,Pensacola,Sarasota
Georgia|GA|South|Atlanta|Savannah,Macon,Valdosta,Marietta
Hawaii|HI|West|Honolulu|Hilo,Kailua,Waipahu,Lahaina
Idaho|ID|West|Boise|Nampa,Pocatello,Meridian,Twin Falls
Illinois|IL|Midwest|Springfield|Chicago,Peoria,Rockford,Naperville,Joliet
Indiana|IN|Midwest|Indianapolis|Evansville,Gary,Muncie,South Bend,Fort Wayne
Iowa|IA|Midwest|Des Moines|Davenport,Dubuque,Ames,Cedar Rapids
Kansas|KS|Midwest|Topeka|Wichita,Olathe,Lawrence,Salina
Kentucky|KY|South|Frankfort|Louisville,Lexington,Paducah,Owensboro
Louisiana|LA|South|Baton Rouge|Shreveport,Lafayette,New Orleans,Monroe
Maine|ME|Northeast|Augusta|Bangor,Lewiston,Biddeford,Bar Harbor
Maryland|MD|South|Annapolis|Baltimore,Rockville,Frederick,Hagerstown
Massachusetts|MA|Northeast|Boston|Worcester,Lowell,Cambridge,Brockton
Michigan|MI|Midwest|Lansing|Detroit,Flint,Kalamazoo,Saginaw,Grand Rapids
Minnesota|MN|Midwest|Saint Paul|Minneapolis,Duluth,Rochester,Mankato
Mississippi|MS|South|Jackson|Biloxi,Gulfport,Tupelo,Natchez
Missouri|MO|Midwest|Jefferson City|Branson,Joplin,Sedalia,Hannibal
Montana|MT|West|Helena|Billings,Missoula,Bozeman,Butte
Nebraska|NE|Midwest|Lincoln|Omaha,Kearney,Fremont,Hastings
Nevada|NV|West|Carson City|Reno,Henderson,Elko,Las Vegas
New Hampshire|NH|Northeast|Concord|Manchester,Nashua,Keene,Laconia
New Jersey|NJ|Northeast|Trenton|Paterson,Camden,Hoboken,Jersey City
New Mexico|NM|West|Santa Fe|Albuquerque,Roswell,Taos,Las Cruces
New York|NY|Northeast|Albany|Buffalo,Syracuse,Yonkers,Ithaca,Utica
North Carolina|NC|South|Raleigh|Charlotte,Durham,Greensboro,Asheville
North Dakota|ND|Midwest|Bismarck|Fargo,Minot,Williston,Grand Forks
Ohio|OH|Midwest|Columbus|Cleveland,Cincinnati,Toledo,Akron,Dayton
Oklahoma|OK|South|Oklahoma City|Tulsa,Norman,Stillwater,Muskogee
Oregon|OR|West|Salem|Portland,Eugene,Medford,Ashland
Pennsylvania|PA|Northeast|Harrisburg|Philadelphia,Pittsburgh,Scranton,Allentown,Erie
Rhode Island|RI|Northeast|Providence|Warwick,Cranston,Pawtucket,Newport
South Carolina|SC|South|Columbia|Greenville,Spartanburg,Myrtle Beach,Beaufort
South Dakota|SD|Midwest|Pierre|Sioux Falls,Rapid City,Brookings,Deadwood
Tennessee|TN|South|Nashville|Memphis,Knoxville,Chattanooga,Clarksville
Texas|TX|South|Austin|Dallas,Houston,Lubbock,Galveston,Amarillo
Utah|UT|West|Salt Lake City|Provo,Ogden,Moab,Logan
Vermont|VT|Northeast|Montpelier|Burlington,Rutland,Stowe,Brattleboro
Virginia|VA|South|Richmond|Norfolk,Roanoke,Lynchburg,Charlottesville
Washington|WA|West|Olympia|Seattle,Tacoma,Spokane,Yakima
West Virginia|WV|South|Charleston|Huntington,Wheeling,Morgantown,Parkersburg
Wisconsin|WI|Midwest|Madison|Milwaukee,Kenosha,Oshkosh,Green Bay
Wyoming|WY|West|Cheyenne|Casper,Laramie,Sheridan,Cody
"""

# name | capital | language | currency | continent | other cities
COUNTRIES_TABLE = """
France|Paris|French|euro|Europe|Lyon,Marseille,Toulouse,Nice
Germany|Berlin|German|euro|Europe|Munich,Hamburg,Cologne,Dresden
Italy|Rome|Italian|euro|Europe|Milan,Naples,Turin,Bologna
Spain|Madrid|Spanish|euro|Europe|Barcelona,Seville,Bilbao,Malaga
Portugal|Lisbon|Portuguese|euro|Europe|Porto,Braga,Coimbra
Austria|Vienna|German|euro|Europe|Salzburg,Graz,Innsbruck
Greece|Athens|Greek|euro|Europe|Thessaloniki,Patras,Heraklion
Finland|Helsinki|Finnish|euro|Europe|Tampere,Turku,Oulu
Ireland|Dublin|English|euro|Europe|Cork,Galway,Limerick
Croatia|Zagreb|Croatian|euro|Europe|Split,Dubrovnik,Rijeka
Lithuania|Vilnius|Lithuanian|euro|Europe|Kaunas,Klaipeda,Siauliai
Sweden|Stockholm|Swedish|krona|Europe|Gothenburg,Malmo,Uppsala
Norway|Oslo|Norwegian|krone|Europe|Bergen,Trondheim,Stavanger
Denmark|Copenhagen|Danish|krone|Europe|Aarhus,Odense,Aalborg
Iceland|Reykjavik|Icelandic|krona|Europe|Akureyri,Keflavik,Husavik
Poland|Warsaw|Polish|zloty|Europe|Krakow,Gdansk,Wroclaw
Czechia|Prague|Czech|koruna|Europe|Brno,Ostrava,Pilsen
Hungary|Budapest|Hungarian|forint|Europe|Debrecen,Szeged,Pecs
Romania|Bucharest|Romanian|leu|Europe|Cluj,Timisoara,Iasi
Ukraine|Kyiv|Ukrainian|hryvnia|Europe|Lviv,Odesa,Kharkiv
Albania|Tirana|Albanian|lek|Europe|Durres,Vlore,Shkoder
Cambodia|Phnom Penh|Khmer|riel|Asia|Battambang,Siem Reap,Kampot
Japan|Tokyo|Japanese|yen|Asia|Osaka,Kyoto,Sapporo,Nagoya
China|Beijing|Chinese|yuan|Asia|Shanghai,Wuhan,Chengdu,Nanjing
Vietnam|Hanoi|Vietnamese|dong|Asia|Danang,Hue,Haiphong
Thailand|Bangkok|Thai|baht|Asia|Phuket,Pattaya,Chiang Mai
Indonesia|Jakarta|Indonesian|rupiah|Asia|Surabaya,Bandung,Medan
Jordan|Amman|Arabic|dinar|Asia|Irbid,Zarqa,Aqaba
Iran|Tehran|Persian|rial|Asia|Isfahan,Shiraz,Tabriz
Mongolia|Ulaanbaatar|Mongolian|tugrik|Asia|Erdenet,Darkhan,Choibalsan
Bangladesh|Dhaka|Bengali|taka|Asia|Chittagong,Khulna,Sylhet
Nepal|Kathmandu|Nepali|rupee|Asia|Pokhara,Lalitpur,Biratnagar
Egypt|Cairo|Arabic|pound|Africa|Alexandria,Luxor,Aswan
Morocco|Rabat|Arabic|dirham|Africa|Casablanca,Marrakesh,Tangier
Algeria|Algiers|Arabic|dinar|Africa|Oran,Annaba,Setif
Ethiopia|Addis Ababa|Amharic|birr|Africa|Gondar,Mekelle,Adama
Senegal|Dakar|French|franc|Africa|Thies,Kaolack,Touba
Angola|Luanda|Portuguese|kwanza|Africa|Huambo,Lobito,Benguela
Nigeria|Abuja|English|naira|Africa|Lagos,Kano,Ibadan
Ghana|Accra|English|cedi|Africa|Kumasi,Tamale,Takoradi
Brazil|Brasilia|Portuguese|real|America|Salvador,Recife,Fortaleza,Manaus
Argentina|Buenos Aires|Spanish|peso|America|Rosario,Mendoza,Salta
Peru|Lima|Spanish|sol|America|Cusco,Arequipa,Trujillo
Chile|Santiago|Spanish|peso|America|Valparaiso,Concepcion,Temuco
Colombia|Bogota|Spanish|peso|America|Medellin,Cali,Barranquilla
Canada|Ottawa|English|dollar|America|Toronto,Calgary,Winnipeg,Vancouver
"""


def _rows(table: str) -> list[list[str]]:
    return [line.split("|") for line in table.strip().splitlines()]


def states() -> list[Place]:
    """The fifty US states."""
    return [
        Place(name, tuple(cities.split(",")), {"capital": capital, "abbreviation": code, "region": region})
        for name, code, region, capital, cities in _rows(STATES_TABLE)
    ]


def countries() -> list[Place]:
    """Countries with one main language and an unambiguous capital."""
    return [
        Place(
            name,
            tuple(cities.split(",")),
            {"capital": capital, "language": language, "currency": currency, "continent": continent},
        )
        for name, capital, language, currency, continent, cities in _rows(COUNTRIES_TABLE)
    ]


LANGUAGES = ("en", "fr", "es")

# Antonym pairs: English, French, Spanish; "a/b" are the two ends. Adjectives stand in the masculine singular.
ANTONYM_TABLE = """
small/big|petit/grand|pequeño/grande
hot/cold|chaud/froid|caliente/frío
fast/slow|rapide/lent|rápido/lento
high/low|haut/bas|alto/bajo
rich/poor|riche/pauvre|rico/pobre
good/bad|bon/mauvais|bueno/malo
new/old|nouveau/vieux|nuevo/viejo
strong/weak|fort/faible|fuerte/débil
happy/sad|heureux/triste|feliz/triste
full/empty|plein/vide|lleno/vacío
open/closed|ouvert/fermé|abierto/cerrado
clean/dirty|propre/sale|limpio/sucio
easy/difficult|facile/difficile|fácil/difícil
long/short|long/court|largo/corto
wide/narrow|large/étroit|ancho/estrecho
heavy/light|lourd/léger|pesado/ligero
bright/dark|clair/sombre|claro/oscuro
day/night|jour/nuit|día/noche
black/white|noir/blanc|negro/blanco
true/false|vrai/faux|verdadero/falso
dry/wet|sec/mouillé|seco/mojado
thick/thin|épais/mince|grueso/delgado
sweet/bitter|doux/amer|dulce/amargo
brave/cowardly|courageux/lâche|valiente/cobarde
quiet/loud|silencieux/bruyant|silencioso/ruidoso
near/far|proche/lointain|cercano/lejano
public/private|public/privé|público/privado
first/last|premier/dernier|primero/último
left/right|gauche/droite|izquierda/derecha
love/hate|amour/haine|amor/odio
war/peace|guerre/paix|guerra/paz
life/death|vie/mort|vida/muerte
winter/summer|hiver/été|invierno/verano
north/south|nord/sud|norte/sur
beginning/end|début/fin|principio/fin
question/answer|question/réponse|pregunta/respuesta
friend/enemy|ami/ennemi|amigo/enemigo
man/woman|homme/femme|hombre/mujer
king/queen|roi/reine|rey/reina
boy/girl|garçon/fille|niño/niña
father/mother|père/mère|padre/madre
brother/sister|frère/sœur|hermano/hermana
buy/sell|acheter/vendre|comprar/vender
win/lose|gagner/perdre|ganar/perder
victory/defeat|victoire/défaite|victoria/derrota
truth/lie|vérité/mensonge|verdad/mentira
heaven/hell|ciel/enfer|cielo/infierno
sick/healthy|malade/sain|enfermo/sano
beautiful/ugly|beau/laid|hermoso/feo
""".strip()

# English nouns, singular and plural, for agreement of number across a distractor.
NOUN_TABLE = (
    "key/keys cabinet/cabinets dog/dogs cat/cats tree/trees house/houses bird/birds car/cars book/books table/tables "
    "door/doors window/windows chair/chairs farmer/farmers teacher/teachers pilot/pilots doctor/doctors river/rivers "
    "garden/gardens bridge/bridges"
)
PREPOSITIONS = ("near", "behind", "beside")
# cue word -> (verb for a singular subject, verb for a plural one)
VERBS = {"Today": ("is", "are"), "Yesterday": ("was", "were")}

# Nouns by gender, adjectives as masculine/feminine, for agreement of gender.
FRENCH_NOUNS = {
    "m": "livre chien jardin bateau mur chapeau pont stylo",
    "f": "maison fleur table porte voiture robe chaise lampe",
}
FRENCH_ADJECTIVES = "vert/verte bleu/bleue brun/brune rond/ronde joli/jolie neuf/neuve"
SPANISH_NOUNS = {
    "m": "libro perro barco muro sombrero puente coche zapato",
    "f": "casa flor mesa puerta silla falda camisa pared",
}
SPANISH_ADJECTIVES = "rojo/roja amarillo/amarilla morado/morada bonito/bonita redondo/redonda moderno/moderna"

# Words for the induction task: sequences of these with a repeat.
INDUCTION_WORDS = (
    "apple lemon piano violin copper silver rabbit turtle candle pencil basket hammer button ladder mirror needle "
    "pepper pillow ribbon rocket saddle spider ticket tunnel walnut zipper cactus carpet cherry cookie engine feather"
)


def antonym_words() -> list[dict[str, str]]:
    """One entry per concept: its word in each language. Concepts 2i and 2i+1 are each other's opposites."""
    concepts: list[dict[str, str]] = []
    for line in ANTONYM_TABLE.splitlines():
        ends = [cell.split("/") for cell in line.split("|")]
        concepts.extend({lang: ends[k][end] for k, lang in enumerate(LANGUAGES)} for end in (0, 1))
    return concepts


def noun_pairs() -> list[tuple[str, str]]:
    """English (singular, plural) pairs."""
    return [(one, many) for one, many in (pair.split("/") for pair in NOUN_TABLE.split())]
